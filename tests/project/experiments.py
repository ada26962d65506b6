"""The runs of the fingerprint that are built in Python, from parts as a user would write them.

Of alcore only the names of the package itself are used, and of plugins those of theirs, since modules move.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from alcore_bayes import BALDQuery
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_random import RandomQuery
from alcore_uq import ClassifierUQQuery

import alcore
from alcore import BaseLabel, BaseMetrology, BaseQuery, Driver, Failed, Label, Phase, TensorPool
from alcore import config as c

Place = tuple[int, str, int | str]


def begin() -> None:
    """Use one thread, and bring the global generators where they are in every run."""
    torch.set_num_threads(1)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)


def clouds(total: int, labeled: int, seed: int = 3) -> TensorPool:
    """Return two clouds of points that overlap, of which the first few are labeled."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.arange(total) % 2
    inputs = torch.randn(total, 2, generator=draw) + 1.5 * targets[:, None]
    return TensorPool(inputs, targets, range(labeled))


class Net(torch.nn.Module):
    """A learner with dropout, batch normalization and steps of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(2, 8), torch.nn.Linear(8, 2)
        self.norm, self.dropout = torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.relu(self.norm(self.first(inputs)))))

    def training_step(self, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        return torch.nn.functional.cross_entropy(self(inputs), targets.long().flatten())

    def validation_step(self, batch: Any) -> torch.Tensor:
        return self.training_step(batch)


def configure(root: Path, run_id: str, **settings: Any) -> c.DriverConfig:
    """Return the settings that all runs share, and these."""
    shared = {"batch_size": 8, "drop_last": True, "device": "cpu", "seed": 5}
    return c.DriverConfig(run_id=run_id, root_log_dir=root, **(shared | settings))


def optimize(**more: Any) -> c.OptimizerConfig:
    """Return an optimizer that has state."""
    return c.OptimizerConfig(torch.optim.Adam, {"lr": 0.02}, **more)


# -- a loop, an observer and a stop criterion of one's own ----------------------------------------------------


def own_loop(
    model: Any,
    optimizer: Any,
    train_dataloader: Any,
    max_epochs: int,
    validation_dataloader: Any = None,
    train_step_fn: Any = None,
    lr_scheduler: Any = None,
    on_epoch_end: Any = None,
) -> None:
    """Train in a way of its own; some of what the protocol offers is not taken."""
    for epoch in range(max_epochs):
        model.train()
        losses = []
        for batch in train_dataloader:
            optimizer.zero_grad()
            loss = train_step_fn(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            held = [float(model.validation_step(batch)) for batch in validation_dataloader]
        lr_scheduler.step()
        on_epoch_end(epoch, {"loss": sum(losses) / len(losses), "validation_loss": sum(held) / len(held)})


def draw_positions(pool: Any, generator: torch.Generator) -> list[int]:
    """Go through a random three quarters of the pool in an epoch."""
    return torch.randperm(len(pool), generator=generator)[: 3 * len(pool) // 4].tolist()


class Diary(BaseMetrology):
    """An observer that hears of everything, and a metrology strategy that records what was heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.append_record(heard=self.heard, extra=sorted(kwargs))
        self.heard = []

    @alcore.runhook
    def alcore_run_start(self, driver: Driver) -> None:
        self.heard.append(f"run {driver.run_id} begins")

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        self.heard.append(f"{phase} of step {driver.active_learning_step_idx} begins")

    @alcore.runhook
    def alcore_phase_end(self, phase: Phase, error: BaseException | None) -> None:
        self.heard.append(f"{phase} ends with {error}")

    @alcore.runhook
    def alcore_step_end(self, record: Mapping[str, Any]) -> None:
        told = {name: value for name, value in record.items() if name not in ("seconds", "metrics")}
        self.heard.append(f"{told}, {sorted(record)}")


class Enough:
    """A stop criterion with state."""

    def __init__(self, steps: int) -> None:
        self.steps, self.asked = steps, 0

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        self.asked += 1
        return f"{len(driver.train_datapool)} samples are enough" if self.asked > self.steps else None

    def state_dict(self) -> Mapping[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]


def loop(root: Path) -> None:
    """Run with a training loop, an observer, a stop criterion and a sampler of one's own."""
    begin()
    diary = Diary()
    driver = Driver(
        configure(root, "loop", fine_tuning_lr=0.01, reset_optim_states=False, model_checkpoint_frequency=2),
        Net(),
        c.StrategiesConfig(
            [ClassifierUQQuery(max_samples=3, measure="entropy"), BALDQuery(max_samples=2, samples=5)],
            queue.LifoQueue, DummyLabelStrategy(), [F1Metrology(), diary],
        ),
        c.TrainingConfig(
            clouds(120, 12), 4, clouds(30, 30, seed=4),
            optimize(scheduler_cls=torch.optim.lr_scheduler.StepLR, scheduler_kwargs={"step_size": 3}),
            max_fine_tuning_epochs=2, train_loop_fn=own_loop, sampler=draw_positions,
        ),
        plugins=[Enough(5), diary],
    )  # fmt: skip
    driver.run(extra="is passed on")


# -- generated inputs -----------------------------------------------------------------------------------------


class Inventing(BaseQuery):
    """Asks for new inputs, and for samples that all global generators have a part in."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.calls += 1
        (ids,) = self.driver.candidates()
        invented = torch.randn(2, 2, generator=self.driver.generator(self.name, "invented"))
        query_queue.put(invented[0], score=0.5)
        draws = random.random() + float(np.random.random()) + float(torch.rand(()))
        query_queue.put(ids[int(1000 * draws) % len(ids)], score=draws)
        query_queue.put_many([invented[1], int(ids[-self.calls])], [0.25, 0.125])
        query_queue.put(int(ids[-self.calls]))  # once more: it is dropped

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


class Oracle(BaseLabel):
    """Answers in every form that there is, turn by turn: with a Label, an id, and tensors."""

    def __init__(self, *, one_tensor: bool) -> None:
        self.one_tensor, self.turn = one_tensor, 0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.turn += 1
            generated = isinstance(request.item, torch.Tensor)
            value = int(torch.rand(()) < 0.5)
            if generated and self.turn % 2:
                one = torch.cat([request.item, torch.tensor([float(value)])])
                serialize_queue.put(one if self.one_tensor else (request.item, torch.tensor(value)))
            elif generated or self.turn % 3 == 0:
                serialize_queue.put(Label(request, value, source="machine", cost=0.5))
            elif self.turn % 3 == 1:
                serialize_queue.put(Label(request.item, torch.tensor(value), source="expert"))
            else:
                serialize_queue.put(request.item)


class MeanOutput(BaseMetrology):
    """A figure that depends on the weights and on its own past, which may be infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0

    def compute(self, *args: Any, **kwargs: Any) -> None:
        outputs = self.driver.infer(self.driver.choice_pool.inputs(torch.arange(20)))
        self.mean = 0.5 * self.mean + 0.5 * float(outputs.mean())
        self.append_record(mean=self.mean, first=outputs[0].cpu(), limit=float("inf"))

    def state_dict(self) -> Mapping[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]


def generated(root: Path) -> None:
    """Run with inputs that the query strategy makes, and a pool that takes them in."""
    begin()
    Driver(
        configure(root, "generated", max_active_learning_steps=6),
        Net(),
        c.StrategiesConfig([Inventing(), RandomQuery(2)], queue.Queue, Oracle(one_tensor=False), [MeanOutput()]),
        c.TrainingConfig(clouds(60, 12), 3, optimizer_config=optimize(), reset_learner=True),
    ).run()


class Rows:
    """A pool that is a list of items, and knows nothing of samples."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def append(self, item: Any) -> None:
        inputs, target = (item[:-1], item[-1]) if isinstance(item, torch.Tensor) else item
        self.items.append((torch.as_tensor(inputs), torch.as_tensor(target).float()))


def tensors(root: Path) -> None:
    """Run with answers that are tensors, a pool of one's own, and another pool to choose from."""
    begin()
    unlabeled, train = clouds(60, 0), Rows([])
    for sample in range(12):
        train.append(unlabeled.answer(sample))
    Driver(
        configure(root, "tensors", max_active_learning_steps=6, checkpoint_interval=2, drop_last=False),
        torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)),
        c.StrategiesConfig(
            [Inventing(), ClassifierUQQuery(max_samples=2)], queue.Queue, Oracle(one_tensor=True),
            [MeanOutput(), MeanOutput()], unlabeled_datapool=unlabeled,
        ),
        c.TrainingConfig(train, 3, optimizer_config=optimize()),
    ).run(train_step_fn=logits_step)  # fmt: skip


def logits_step(model: Any, batch: Any) -> torch.Tensor:
    """Return the loss of a learner with one logit."""
    inputs, targets = batch
    return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float().flatten())


# -- failures, costs and a budget -----------------------------------------------------------------------------


class Unreliable(BaseLabel):
    """Fails, is wrong, repeats and corrects itself, and asks a price that differs from what it said."""

    def cost(self, item: Any) -> float:
        return 1.0 + item % 3 * 0.5

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        step = self.driver.active_learning_step_idx
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            turn = (step + request.ordinal) % 6
            if turn == 1:
                serialize_queue.put(Failed(request, f"it failed {request.attempt + 1} times"))
            elif turn == 2 and request.attempt == 0:
                serialize_queue.put(Failed(request.item, "once more"))
            elif turn == 3 and request.attempt == 0:
                serialize_queue.put(Label(request, 7, source="expert"))  # there is no such class
            else:
                value = request.item % 2
                if turn == 4:
                    serialize_queue.put(Label(request, 1 - value, source="expert", cost=2.0))  # is corrected below
                serialize_queue.put(Label(request.item, value, source="expert", cost=1.25))
                if turn == 5:
                    serialize_queue.put(Label(request, value, source="expert", cost=1.25))  # a repeat
                    serialize_queue.put(Label(request, 1 - value, source="another"))  # too late
        serialize_queue.put_many([10_000, Label(0, 1)])  # nobody asked for these


def failures(root: Path) -> None:
    """Run with answers that fail, until the budget is spent."""
    begin()
    Driver(
        configure(root, "failures", label_retries=1, budget=40.0, samples_per_step=7, keep="last=3,best=f1"),
        Net(),
        c.StrategiesConfig([ClassifierUQQuery(), RandomQuery()], queue.Queue, Unreliable(), [F1Metrology()]),
        c.TrainingConfig(clouds(90, 12), 3, clouds(30, 30, seed=4), optimize(), sampler="balanced"),
    ).run()


# -- a process that is killed or asked to end -----------------------------------------------------------------


class Ending(NamedTuple):
    """How the first process of a run ends: where, by which signal, and what becomes of answers in doubt."""

    place: Place | None = None
    number: int = signal.SIGKILL
    doubt: Literal["ask", "drop", "poll"] | None = None


ENDINGS = {
    "undisturbed": Ending(),
    "killed-labeling": Ending((3, "labeling", "begins")),
    "killed-answers": Ending((3, "labeling", 2)),
    "killed-training": Ending((5, "training", 12)),
    "killed-metrology": Ending((5, "metrology", "ends")),
    "interrupted": Ending((5, "training", 8), signal.SIGINT),
    "doubt-ask": Ending((3, "labeling", "takes 3"), doubt="ask"),
    "doubt-drop": Ending((3, "labeling", "takes 3"), doubt="drop"),
    "doubt-poll": Ending((3, "labeling", "takes 3"), doubt="poll"),
}
"""Places are a step, a phase, and how many answers or batches of it are done."""


class Killer:
    """An observer that ends its own process at one place of the run."""

    def __init__(self, ending: Ending) -> None:
        self.ending, self.driver, self.step, self.phase, self.done = ending, None, -1, "", 0

    def count(self) -> None:
        """Note that another answer was delivered, or another batch begun."""
        self.done += 1
        self.look(self.done)

    def look(self, where: int | str) -> None:
        """End the process if this is the place."""
        if (self.step, self.phase, where) != self.ending.place:
            return
        if self.ending.number == signal.SIGINT:
            self.driver.interrupt()
        else:
            os.kill(os.getpid(), self.ending.number)

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: Phase) -> None:
        self.driver, self.step, self.phase, self.done = driver, driver.active_learning_step_idx, str(phase), 0
        self.look("begins")

    @alcore.runhook
    def alcore_phase_end(self) -> None:
        self.look("ends")


class Paid(BaseLabel):
    """Draws its answers from a generator of each request and a count of its own; some fail at first."""

    def __init__(self, killer: Killer, doubt: str | None) -> None:
        self.killer, self.answers = killer, 0
        self.idempotent = doubt is None
        if doubt == "poll":
            self.poll = lambda request_id: int(request_id, 16) % 2

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            self.answers += 1
            self.killer.look(f"takes {self.killer.done + 1}")
            drawn = torch.rand(2, generator=self.generator(f"{request.id} {request.attempt}"))
            value = int(float(drawn.sum()) + self.answers % 2 > 1)
            failed = request.ordinal % 3 == 1 and request.attempt == 0
            serialize_queue.put(Failed(request, "once more") if failed else Label(request, value, source="noise"))
            self.killer.count()

    def state_dict(self) -> Mapping[str, Any]:
        return {"answers": self.answers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers = state["answers"]


def killed(root: Path, ending: Ending, life: int) -> None:
    """Run to the place where this process ends, or in the second life go on from there to the end of the run."""
    begin()
    killer = Killer(ending if life == 1 else Ending())

    def train_step(model: Any, batch: Any) -> torch.Tensor:
        killer.count()
        return model.training_step(batch)

    driver = Driver(
        configure(
            root, "killed", max_active_learning_steps=8, label_retries=1, model_checkpoint_frequency=2,
            reset_optim_states=False,
        ),
        Net(),
        c.StrategiesConfig(
            [Inventing(), ClassifierUQQuery(max_samples=2)], queue.Queue, Paid(killer, ending.doubt),
            [F1Metrology(), MeanOutput()],
        ),
        c.TrainingConfig(
            clouds(90, 18), 4,
            optimizer_config=optimize(scheduler_cls=torch.optim.lr_scheduler.StepLR, scheduler_kwargs={"step_size": 5}),
            max_fine_tuning_epochs=3,
        ),
        plugins=[killer, Enough(20)],
    )  # fmt: skip
    if life == 2:
        torch.manual_seed(1)  # what the generators are at depends on the checkpoint alone
        driver.restore(in_doubt=None if ending.doubt == "poll" else ending.doubt)
    try:
        driver.run(train_step_fn=train_step)
    except KeyboardInterrupt:
        sys.exit(130)
