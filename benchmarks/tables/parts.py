"""The parts of the runs: a query strategy that draws at random up to given numbers of labels, and what measures."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from figures import of_classes, of_values
from tables import LABELS

from alcore import BaseMetrology, BaseQuery, Phase, runhook
from alcore.outputs import class_probabilities, kind_of, mean_and_variance

SIZES = (20, 30, 40, 50, 75, 100, 150, 200, 300, 450, 700, 1000)
"""How many labels there are at each training: a learner that goes on with its weights has had so many before."""


class UpToNext(BaseQuery):
    """Asks for samples drawn at random, as many as the next number of labels needs."""

    def __init__(self) -> None:
        self.max_samples = max(SIZES)

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for samples."""
        labeled = len(self.driver.train_datapool)
        more = next((size for size in SIZES if size > labeled), labeled) - labeled
        ids = torch.cat(list(self.driver.candidates()))
        for sample in ids[torch.randperm(len(ids), generator=self.driver.generator())[:more]].tolist():
            query_queue.put(sample)


class Measured(BaseMetrology):
    """Measures the learner where there are 50, 200 and 1000 labels, on the held-out rows."""

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Append the figures to the records."""
        driver = self.driver
        if len(driver.train_datapool) not in LABELS:
            return
        held_out = driver.val_datapool
        inputs, targets = held_out.batch(torch.arange(len(held_out)))
        outputs, true = driver.infer(inputs), targets.numpy()
        assert driver.info is not None
        kind = kind_of(driver.learner, driver.info.task)
        if driver.info.task == "classification":
            figures = of_classes(class_probabilities(outputs, kind).double().numpy(), true)
        else:
            figures = _of_outputs(outputs, kind, true)
        self.records.append({"labels": len(driver.train_datapool), **figures})


def _of_outputs(outputs: Any, kind: Any, true: Any) -> dict[str, float]:
    """Return the figures of a regression: intervals too, where the learner gives more than a value."""
    if kind == "mean-variance" or outputs.dim() == 3:
        both = mean_and_variance(outputs.double(), kind)
        return of_values(both.mean.numpy().ravel(), np.sqrt(both.variance.numpy().ravel()), true.ravel())
    return of_values(outputs.double().numpy().ravel(), None, true.ravel())


class TrainingClock:
    """Takes the CPU time of each training."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._begun = 0.0

    @runhook
    def alcore_phase_start(self) -> None:
        """Note when a phase begins."""
        self._begun = time.process_time()

    @runhook
    def alcore_phase_end(self, driver: Any, phase: Phase) -> None:
        """Note how long a training took."""
        if phase == Phase.TRAINING:
            self.seconds[len(driver.train_datapool)] = time.process_time() - self._begun
