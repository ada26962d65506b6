"""A small experiment on however many ranks there are: ``python experiment.py '{"run_id": "r1", ...}'``.

Each line of the file ``paid`` is an answer that somebody was paid for. `DEFAULTS` lists the options; ``fault`` is
``[rank, step, phase, what]``.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alcore_f1 import F1Metrology
from alcore_stopping import Budget
from alcore_uq import ClassifierUQQuery

import alcore
from alcore import DistributedManager, Driver, Label, SetQuery, TensorPool
from alcore import config as c
from alcore.inference import evaluate, extract_features, top_k
from alcore.strategies import BaseQuery

sys.path.append(str(Path(__file__).parents[1]))
from helpers.experiment import Paid, Smoothed, Wandering

DEFAULTS: dict[str, Any] = {
    "run_id": "r1", "root": "runs", "steps": 3, "restore": False, "other_ranks": False, "train": True, "epochs": 2,
    "samples": 200, "fault": None, "wait": 0.0, "loop": None, "validate": False, "dropout": 0.2, "data_seed": 0,
    "every_epoch": False, "seed": 5, "lr": 0.05, "val_seed": 9, "timeout": 20.0, "observer": None, "label": None,
    "budget": None, "query": None,
}  # fmt: skip


class Farthest(SetQuery):
    """Asks for samples whose features are far from those of all labeled and pending samples."""

    def choose(self, candidates: Any, labeled: Any, n: int, pending: Any = None) -> Any:
        distances = torch.cdist(candidates.features, torch.cat([labeled.features, pending.features])).amin(1)
        top = torch.topk(distances, n)
        return top.indices, top.values


class Labeler(Paid):
    """Writes each answer to the file ``paid`` before it delivers it."""

    def __init__(self, wait: float) -> None:
        super().__init__(pay=self.write)
        self.wait = wait

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        trouble(self.driver, "labeling")
        print("labels", flush=True)
        if OPTIONS["label"] == "evaluates":
            assert len(list(evaluate(self.driver).batches)) > 0
            assert len(extract_features(self.driver).ids) > 0
        if OPTIONS["label"] == "late":  # from a thread, at any time after the phase
            arguments = (queue_to_label.get_request(), serialize_queue)
            threading.Thread(target=self.answer_late, args=arguments, daemon=True).start()
        if OPTIONS["label"] == "a step late":
            for request in queue_to_label.get_many(queue_to_label.qsize()):
                if request.step < self.driver.active_learning_step_idx:
                    self.answer(request, serialize_queue)
                else:
                    queue_to_label.give_back(request)
            return
        super().label(queue_to_label, serialize_queue, *args, **kwargs)

    def write(self, request: Any) -> None:
        time.sleep(self.wait)
        with Path("paid").open("a") as file:
            file.write(f"{request.id} {request.attempt}\n")

    def answer_late(self, request: Any, answers: Any) -> None:
        time.sleep(random.Random(request.ordinal + request.step).random() * 0.3)
        answers.put(Label(request, 1))


class Watch:
    """A stop criterion with state; all ranks ask it."""

    def __init__(self) -> None:
        self.seen = 0

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        self.seen += 1
        driver.infer(driver.train_datapool.inputs(torch.arange(4)))
        return "that was too much" if self.seen > 20 else None

    def state_dict(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Observer:
    """An observer; rank 0 alone calls it."""

    @alcore.runhook
    def alcore_step_end(self, driver: Driver) -> None:
        if OPTIONS["observer"] == "evaluates":
            print("evaluated", sum(len(targets) for _, targets in evaluate(driver).batches))


class Astray(BaseQuery):
    """Scores on rank 0 alone, so that ranks differ in what they exchange."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        if self.driver.ranks.rank == 0:
            top_k(self.driver, lambda outputs: outputs[:, 0], 3)


class Learner(torch.nn.Module):
    """Has dropout, which draws on each rank, and batch normalization, whose buffers each rank changes."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(2, 16), torch.nn.Linear(16, 2)
        self.norm, self.dropout = torch.nn.BatchNorm1d(16), torch.nn.Dropout(dropout)
        self.driver: Any = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.relu(self.norm(self.first(inputs)))))

    def training_step(self, batch: Any) -> torch.Tensor:
        trouble(DRIVER[0], "training")
        inputs, targets = batch
        loss = torch.nn.functional.cross_entropy(self(inputs), targets.long())
        return loss * float("nan") if trouble(DRIVER[0], "training", "nan") else loss


def unshared(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
    """A training loop that gets its losses from the model itself, so that gradients aren't averaged."""
    for _ in range(max_epochs):
        for batch in train_dataloader:
            optimizer.zero_grad()
            model.training_step(batch).backward()
            optimizer.step()


DRIVER: list[Any] = []
OPTIONS: dict[str, Any] = {}


def trouble(driver: Driver, phase: str, kind: str = "") -> bool:
    """Fail here, where the option ``fault`` says so; return whether the loss is to be NaN."""
    if OPTIONS["fault"] is None:
        return False
    rank, step, when, what = OPTIONS["fault"]
    here = (driver.ranks.rank, driver.active_learning_step_idx, phase) == (rank, step, when)
    if not here or (kind != what if kind or what == "nan" else False):
        return False
    if what == "raise":
        raise ValueError(f"trouble in {phase}")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(1000)
    if what == "interrupt":
        OPTIONS["fault"] = None
        driver.interrupt()
    return what == "nan"


def pool(samples: int, seed: int) -> TensorPool:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 2, generator=generator)
    targets = (inputs.prod(1) > 0).long()
    return TensorPool(inputs, targets, labeled=range(0, samples, 10))


def build() -> Driver:
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    o = OPTIONS
    loop = {"unshared": unshared}.get(o["loop"])
    schedule = {"scheduler_cls": torch.optim.lr_scheduler.ReduceLROnPlateau, "scheduler_kwargs": {"patience": 0}}
    driver = Driver(
        c.DriverConfig(
            batch_size=4, drop_last=True, max_active_learning_steps=o["steps"], run_id=o["run_id"],
            root_log_dir=o["root"], seed=o["seed"], skip_training=not o["train"],
            dist_manager=DistributedManager(timeout=o["timeout"]), budget=100.0,
            model_checkpoint_frequency=int(o["every_epoch"]),
        ),
        Learner(o["dropout"]),
        c.StrategiesConfig(
            [
                *([Astray()] if o["query"] == "astray" else []),
                Wandering(samples=(2, 1), inputs=(2,)), ClassifierUQQuery(3), Farthest(2), Farthest(2, candidates=0.5),
            ],
            queue.Queue,
            Labeler(o["wait"]), [F1Metrology(), Smoothed(lambda: trouble(DRIVER[0], "metrology"))],
        ),
        c.TrainingConfig(
            pool(o["samples"], o["data_seed"] if RANK else 0), o["epochs"],
            val_datapool=pool(50, o["val_seed"] if RANK else 9) if o["validate"] else None,
            optimizer_config=c.OptimizerConfig(torch.optim.Adam, {"lr": o["lr"]}, **schedule), train_loop_fn=loop,
        ),
        plugins=[Watch(), Observer(), *([] if o["budget"] is None else [Budget(labels=o["budget"])])],
    )  # fmt: skip
    DRIVER.append(driver)
    return driver


RANK = int(os.environ.get("RANK", "0"))


def main() -> None:
    """Run the experiment; with ``restore``, go on with its run where there is one."""
    OPTIONS.update(DEFAULTS | json.loads(sys.argv[1]))
    torch.set_num_threads(1)
    driver = build()
    signal.signal(signal.SIGTERM, lambda *_: driver.interrupt())
    if OPTIONS["restore"] and driver.ranks.share((driver.log_dir / "run.db").is_file):
        driver.restore(other_ranks=OPTIONS["other_ranks"])
    try:
        driver.run()
    except alcore.errors.Interrupted:
        print("interrupted")
        sys.exit(130)
    weights = [parameter.detach().sum().item() for parameter in driver.learner.state_dict().values()]
    print("ended", json.dumps([driver.stop_reason, weights, len(driver.train_datapool)]))


if __name__ == "__main__":
    import alcore.errors

    main()
