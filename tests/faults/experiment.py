"""The experiment that faults are injected into: small, but with everything whose state can be lost.

``python experiment.py ROOT LOG`` runs it, or takes it up again where ROOT holds a run already. Each line of LOG is
an answer that somebody was paid for; the file lies outside the run directory and is only ever appended to.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import random
import sys
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from alcore_f1 import F1Metrology
from alcore_uq import ClassifierUQQuery
from torch.optim.lr_scheduler import StepLR

import alcore
import alcore.store.run
from alcore import Driver, Label, TensorPool
from alcore import config as c

sys.path.append(str(Path(__file__).parents[1]))
from helpers.experiment import Paid, Smoothed, Wandering

RUN_ID = "faulty"
STEPS = 3
"""Steps that ask for labels; in the one after them a stop criterion ends the run, which only its own state tells."""


class Fields(TensorPool):
    """The label of a sample is its class, or its class with a field that is too large for the database."""

    def check(self, value: Any) -> str | None:
        return super().check(value["class"] if isinstance(value, dict) else value)

    def append(self, item: Any) -> None:
        if isinstance(item, Label) and isinstance(item.value, dict):
            item = dataclasses.replace(item, value=item.value["class"])
        super().append(item)


class WithFields:
    """A label queue that delivers the first answer of each step with a field, and the name of the job that made it."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, answer: Any) -> None:
        request = answer.item
        if isinstance(answer, Label) and request.ordinal == 0:
            self.queue.submitted(request, f"job of attempt {request.attempt}")
            field = torch.full((9000,), request.step + 0.5, dtype=torch.float64)
            answer = dataclasses.replace(answer, value={"class": answer.value, "field": field})
        self.queue.put(answer)


class PaidInThreads(Paid):
    """Writes down each answer before it delivers it, in odd steps from a thread; some fail at first."""

    def __init__(self, log: Path, executor: Executor) -> None:
        super().__init__(pay=self.write_down, fails=lambda request: request.ordinal % 3 == 1 and request.attempt == 0)
        self.log, self.executor = log, executor

    def answer(self, request: Any, serialize_queue: Any) -> None:
        if self.driver.active_learning_step_idx % 2:
            self.executor.submit(super().answer, request, WithFields(serialize_queue)).result()
        else:
            super().answer(request, WithFields(serialize_queue))

    def write_down(self, request: Any) -> None:
        try:
            with self.log.open("a") as file:
                file.write(f"{request.id} {request.attempt}\n")
        except OSError as error:  # so that an error of this file is not taken for one of alcore's
            raise OSError(error.errno, error.strerror, str(self.log)) from error


class Counting:
    """A stop criterion with state."""

    def __init__(self) -> None:
        self.seen = 0

    @alcore.runhook
    def alcore_should_stop(self) -> str | None:
        self.seen += 1
        return "that was too much" if self.seen > STEPS else None

    def state_dict(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


def build(root: Path, log: Path, executor: Executor) -> Driver:
    """Make all parts anew; a second life begins with other weights and other global generators than the first."""
    seed = os.getpid() if (root / RUN_ID).exists() else 99
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.set_num_threads(1)
    # exports are due by the clock: let it show the same times in each run
    clock = SimpleNamespace(monotonic=itertools.count(0, 0.6).__next__, perf_counter=lambda: 0.0)
    alcore.store.run.time = clock  # type: ignore[attr-defined]
    draw = torch.Generator().manual_seed(3)
    targets = torch.arange(40) % 2
    inputs = torch.randn(40, 2, generator=draw) + 2.0 * targets[:, None]
    layers = torch.nn.Linear(2, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1)
    schedule = {"step_size": 2, "gamma": 0.5}
    return Driver(
        config=c.DriverConfig(
            batch_size=8, max_active_learning_steps=STEPS + 3, run_id=RUN_ID, root_log_dir=root, seed=5,
            fine_tuning_lr=0.01, label_retries=1, model_checkpoint_frequency=2, reset_optim_states=False,
        ),
        learner=torch.nn.Sequential(*layers),
        strategies_config=c.StrategiesConfig(
            [Wandering(samples=(2, 0, 1), inputs=(2,)), ClassifierUQQuery(max_samples=1)],
            queue.Queue,
            PaidInThreads(log, executor),
            [Smoothed(), F1Metrology()],
        ),
        training_config=c.TrainingConfig(
            train_datapool=Fields(inputs, targets, labeled=range(8)),
            max_training_epochs=3,
            max_fine_tuning_epochs=1,
            optimizer_config=c.OptimizerConfig(torch.optim.Adam, {"lr": 0.05}, StepLR, schedule),
        ),
        plugins=[Counting()],
    )  # fmt: skip


def train_step(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float())


def live(root: Path, log: Path, executor: Executor) -> Driver:
    """Run the experiment, or take it up again; each life of a run is one call of this."""
    driver = build(root, log, executor)
    if driver.log_dir.exists():
        driver.restore()
    driver.run(train_step_fn=train_step)
    return driver


if __name__ == "__main__":
    with ThreadPoolExecutor(1) as pool:
        live(Path(sys.argv[1]), Path(sys.argv[2]), pool)
