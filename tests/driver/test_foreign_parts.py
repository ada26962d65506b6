"""Parts written for another driver of the same shape: nothing of alcore in them but the driver they are given.

A map-style dataset exposes the labeled part of its arrays and appends an index; the strategies know nothing of
candidates, scoring or base classes, and reach into the pool through ``self.driver``.
"""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from alcore import Driver, runhook
from alcore import config as c
from alcore.store.reading import Run


class HalfPlane(Dataset):
    """Points of the plane; the class says on which side of a line they are."""

    def __init__(self, total: int = 60, start: int = 6) -> None:
        draw = torch.Generator().manual_seed(1)
        self.X = torch.randn(total, 2, generator=draw)
        self.y = (self.X.sum(dim=1, keepdim=True) > 0).float()
        self.train_indices = torch.arange(start)

    def __len__(self) -> int:
        return len(self.train_indices)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = self.train_indices[idx]
        return self.X[at, :], self.y[at]

    def append(self, item: int) -> None:
        self.train_indices = torch.cat([self.train_indices, torch.LongTensor([item])])


class LeastSure:
    """Query strategy."""

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples

    def attach(self, driver: Any) -> None:
        self.driver = driver

    def sample(self, query_queue: queue.Queue[int], *args: Any, **kwargs: Any) -> None:
        data, model = self.driver.train_datapool, self.driver.learner
        unseen = sorted(set(range(len(data.X))) - set(data.train_indices.tolist()))
        if not unseen:
            return
        model.eval()
        with torch.no_grad():
            probabilities = torch.sigmoid(model(data.X[unseen])).flatten()
        order = torch.argsort((probabilities - 0.5).abs())
        for place in order[: self.max_samples]:
            query_queue.put(torch.tensor(unseen)[place])  # a tensor of no dimensions


class PassOn:
    """Label strategy."""

    def attach(self, driver: Any) -> None:
        self.driver = driver

    def label(
        self, query_queue: queue.Queue[int], serialize_queue: queue.Queue[int], *args: Any, **kwargs: Any
    ) -> None:
        while not query_queue.empty():
            serialize_queue.put(query_queue.get())


class Accuracy:
    """Metrology strategy."""

    def __init__(self) -> None:
        self.records: list[dict[str, float]] = []

    def attach(self, driver: Any) -> None:
        self.driver = driver

    def compute(self, *args: Any, **kwargs: Any) -> None:
        data, model = self.driver.train_datapool, self.driver.learner
        model.eval()
        with torch.no_grad():
            right = ((model(data.X) > 0).float() == data.y).float().mean().item()
        self.records.append({"accuracy": right, "step": self.driver.active_learning_step_idx})

    def serialize_records(self, path: str | None = None, *args: Any, **kwargs: Any) -> None:
        target = path or self.driver.log_dir / "accuracy_by_hand.json"
        Path(target).write_text(json.dumps(self.records))


def training_step(model: torch.nn.Module, data: Any) -> torch.Tensor:
    x, y = data
    return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)


def make(root: Path, **settings: Any) -> tuple[Driver, Accuracy]:
    torch.manual_seed(0)
    accuracy = Accuracy()
    driver = Driver(
        config=c.DriverConfig(batch_size=4, root_log_dir=root, device=torch.device("cpu"), **settings),
        learner=torch.nn.Linear(2, 1),
        strategies_config=c.StrategiesConfig(
            query_strategies=[LeastSure(max_samples=5)],
            queue_cls=queue.Queue,
            label_strategy=PassOn(),
            metrology_strategies=[accuracy],
        ),
        training_config=c.TrainingConfig(
            train_datapool=HalfPlane(),
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, optimizer_kwargs={"lr": 0.5}),
            max_training_epochs=3,
        ),
    )
    return driver, accuracy


def test_they_run_unchanged(tmp_path: Path) -> None:
    driver, accuracy = make(tmp_path, max_active_learning_steps=4)
    driver(train_step_fn=training_step)
    assert len(driver.train_datapool) == 6 + 4 * 5
    assert len(set(driver.train_datapool.train_indices.tolist())) == 26
    assert [record["step"] for record in accuracy.records] == [0, 1, 2, 3]
    assert accuracy.records[-1]["accuracy"] > 0.85 > accuracy.records[0]["accuracy"]
    exported = json.loads((driver.log_dir / "accuracy.json").read_text())
    assert exported == accuracy.records == json.loads((driver.log_dir / "accuracy_by_hand.json").read_text())


def test_their_tensors_are_stored_as_sample_ids(tmp_path: Path) -> None:
    driver, _ = make(tmp_path, max_active_learning_steps=1)
    driver(train_step_fn=training_step)
    requests = Run(driver.log_dir).requests()
    assert [type(request["sample"]) for request in requests] == [int] * 5
    assert {request["item"] for request in requests} == {None}
    assert [request["sample"] for request in requests] == driver.train_datapool.train_indices.tolist()[6:]


def test_a_pool_that_runs_dry_ends_the_run(tmp_path: Path) -> None:
    driver, _ = make(tmp_path, max_active_learning_steps=100)
    driver(train_step_fn=training_step)
    assert len(driver.train_datapool) == 60
    assert driver.stop_reason == "the query strategies asked for nothing"


def test_shipped_strategies_say_what_such_a_pool_lacks(tmp_path: Path) -> None:
    import pytest
    from alcore_uq import ClassifierUQQuery

    from alcore import UsageError

    driver, accuracy = make(tmp_path)
    shipped = Driver(
        config=driver.config,
        learner=torch.nn.Linear(2, 1),
        strategies_config=c.StrategiesConfig([ClassifierUQQuery()], queue.Queue, PassOn(), [accuracy]),
        training_config=driver.training_config,
    )
    with pytest.raises(UsageError, match=r"HalfPlane .* unlabeled_indices"):
        shipped(train_step_fn=training_step)
    assert not shipped.log_dir.exists()


def test_a_learner_without_parameters_gets_no_optimizer(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Nearest:
        """Behaves like a module as far as it must: it can be called."""

        def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.sum(dim=1, keepdim=True)

    def fit(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        seen.append(optimizer)

    class Ended:
        @runhook
        def alcore_run_end(self, driver: Any, reason: str | None) -> None:
            seen.append(reason)

    driver, _ = make(tmp_path)
    assert driver.training_config is not None
    Driver(
        config=c.DriverConfig(batch_size=4, max_active_learning_steps=2, root_log_dir=tmp_path),
        learner=Nearest(),
        strategies_config=c.StrategiesConfig([], queue.Queue),
        training_config=c.TrainingConfig(HalfPlane(), 1, train_loop_fn=fit),
        plugins=[Ended()],
    ).run(train_step_fn=training_step)
    assert [None if reason is None else str(reason) for reason in seen] == [None, None, "all 2 steps are done"]
