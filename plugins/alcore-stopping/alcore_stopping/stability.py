"""A stop criterion on the predictions: they stopped changing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import alcore
from alcore.errors import UsageError
from alcore.inference import chunks, subset
from alcore.outputs import check_outputs, kind_of, predicted_classes
from alcore.protocols import RunContext


def cohen_kappa(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return Cohen's kappa of two assignments of classes: their agreement beyond chance.

    ``(p_o - p_e) / (1 - p_e)`` with the share p_o of samples that they agree on and the share
    ``p_e = sum_c n_1c n_2c / n^2`` that they would agree on by chance.

    Parameters
    ----------
    first, second
        Classes, from 0: int64, shape (N,), N of at least 1.

    Returns
    -------
    float
        At most 1, which is full agreement; 0 is agreement by chance. It is 0 if both assign one and the same class to
        all samples, since their agreement then says nothing.

    References
    ----------
    Cohen (1960), A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20.
    """
    n, classes = len(first), int(torch.cat([first, second]).max()) + 1
    counts = [torch.bincount(predicted, minlength=classes).tolist() for predicted in (first, second)]
    agreed = int((first == second).sum()) * n
    by_chance = sum(a * b for a, b in zip(*counts, strict=True))
    return (agreed - by_chance) / (n * n - by_chance) if by_chance < n * n else 0.0


class StabilizingPredictions:
    """End the run when the predictions of successive models agree.

    Parameters
    ----------
    threshold
        Mean Cohen's kappa that ends the run.
    window
        How many successive kappas are averaged.
    size
        Number of samples on which predictions are compared: the stop set, drawn from the unlabeled samples in the first
        step and kept for the whole run.

    Notes
    -----
    After each training the classes of the stop set are predicted, and compared with those of the step before by
    Cohen's kappa; the run ends when the mean of the last `window` kappas is at least `threshold` (Bloodgood and
    Vijay-Shanker, A method for stopping active learning based on stabilizing predictions and the need for
    user-adjustable stopping, CoNLL 2009; their values are the defaults). No label is needed. If the learner
    predicts one class alone, kappa is 0. Time: `size` forward passes a step; state: `size` ids and classes.

    It helps where there is no validation set. It is known to stop too late with a learner that is trained from
    random weights in each step, and too early with few new labels a step, which change little; raise `window` then.
    """

    def __init__(self, threshold: float = 0.99, window: int = 3, size: int = 2000) -> None:
        if not 0 < threshold <= 1:
            raise UsageError(f"StabilizingPredictions: threshold is {threshold}; it must be above 0 and at most 1.")
        for name, value in (("window", window), ("size", size)):
            if value < 1:
                raise UsageError(f"StabilizingPredictions: {name} is {value}; it must be at least 1.")
        self.threshold, self.window, self.size = threshold, window, size
        self._ids: torch.Tensor | None = None
        self._classes: torch.Tensor | None = None
        self._kappas: list[float] = []

    @alcore.runhook
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return the reason to stop, or None."""
        if driver.info is not None and driver.info.task != "classification":
            raise UsageError(
                "StabilizingPredictions is for classification, and the task of this data is regression; use another "
                "stop criterion."
            )
        if self._ids is None:
            self._ids = subset(driver, self.size, driver.generator("stabilizing predictions", "stop set"))
        if not len(self._ids):
            return None
        before, self._classes = self._classes, self._predict(driver, self._ids)
        if before is None:
            return None
        self._kappas = [*self._kappas, cohen_kappa(before, self._classes)][-self.window :]
        mean = sum(self._kappas) / len(self._kappas)
        if len(self._kappas) < self.window or mean < self.threshold:
            return None
        return (
            f"the predictions are stable: the mean kappa of the last {self.window} steps on {len(self._ids)} samples "
            f"is {mean:.4f}, at least {self.threshold:g}"
        )

    @staticmethod
    def _predict(driver: RunContext, ids: torch.Tensor) -> torch.Tensor:
        kind = kind_of(driver.learner)
        return torch.cat([predicted_classes(check_outputs(out), kind).cpu() for _, out in chunks(driver, ids=ids)])

    def state_dict(self) -> Mapping[str, Any]:
        """Return the stop set, its last classes and the last kappas."""
        return {"ids": self._ids, "classes": self._classes, "kappas": list(self._kappas)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._ids, self._classes, self._kappas = state["ids"], state["classes"], list(state["kappas"])
