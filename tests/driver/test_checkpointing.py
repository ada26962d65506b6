"""A run that is asked to end saves where it is: no batch is trained on twice, and the result is the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from alcore_torchloop import DefaultTrainingLoop

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.errors import Interrupted
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseMetrology, PointwiseQuery

Make = Callable[..., Driver]


class Points:
    """Counts places by kind, and asks the run to end at one of them."""

    def __init__(self, end_at: int | None = None) -> None:
        self.end_at, self.passed = end_at, 0
        self.seen: list[str] = []
        self.driver: Driver | None = None

    def __call__(self, kind: str) -> None:
        self.passed += 1
        self.seen.append(kind)
        if self.passed == self.end_at:
            assert self.driver is not None
            self.driver.interrupt()


class Noisy(TensorPool):
    """A pool that augments what is trained on, from every global generator, several batches at a time."""

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = super().batch(positions)
        noise = torch.randn(inputs.shape) * random.random() * float(np.random.random())
        return inputs + noise, targets


class Single(TensorPool):
    """The same by single items, which are collated by torch's DataLoader."""

    batch = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, target = super().__getitem__(index)
        return inputs + torch.randn(inputs.shape) * random.random(), target


class Pair(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor


class Named(Noisy):
    """Batches of a type that can't be stored in a checkpoint."""

    def batch(self, positions: torch.Tensor) -> Any:
        return Pair(*super().batch(positions))


class Unsure(PointwiseQuery):
    def __init__(self, point: Points) -> None:
        super().__init__(3)
        self.point = point

    def score(self, outputs: Any) -> torch.Tensor:
        self.point("query")
        return -outputs.flatten().abs()


class Echo(BaseLabel):
    idempotent = True

    def __init__(self, point: Points) -> None:
        self.point = point

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            self.point("label")
            serialize_queue.put(queue_to_label.get())


class Draws(BaseMetrology):
    """Its figures depend on its past, and on a global generator."""

    def __init__(self, point: Points) -> None:
        super().__init__()
        self.point, self.sum = point, 0.0

    def compute(self, *args: Any, **kwargs: Any) -> None:
        self.point("metrology")
        self.sum += float(torch.rand(()))
        self.append_record(sum=self.sum)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def load_state_dict(self, state: Any) -> None:
        self.sum = state["sum"]


def learner() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.Dropout(0.3), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
    )


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(
        run_id: str, point: Points, pool: type[TensorPool] = Noisy, validate: bool = False, **settings: Any
    ) -> Driver:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        plain = toys.pool(n=60, labelled=14)

        def made(kind: type[TensorPool], labelled: Any) -> TensorPool:
            return kind(plain.inputs(torch.arange(60)), torch.arange(60) % 2, labeled=labelled)

        def train(model: Any, batch: Any) -> torch.Tensor:
            point("train")
            inputs, targets = batch
            return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float())

        def validation(model: Any, batch: Any) -> torch.Tensor:
            point("validate")
            return train_loss(model, batch) + torch.rand(())

        def train_loss(model: Any, batch: Any) -> torch.Tensor:
            inputs, targets = batch
            return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float())

        schedule = {"scheduler_cls": torch.optim.lr_scheduler.ReduceLROnPlateau, "scheduler_kwargs": {"patience": 0}}
        parts: dict[str, Any] = {
            "run_id": run_id,
            "max_active_learning_steps": 2,
            "batch_size": 5,
            "max_training_epochs": 2,
            "train_datapool": made(pool, range(14)),
            "val_datapool": made(Single, range(0, 60, 10)) if validate else None,
            "learner": learner(),
            "query_strategies": [Unsure(point)],
            "label_strategy": Echo(point),
            "metrology_strategies": [Draws(point)],
            "optimizer_config": c.OptimizerConfig(torch.optim.Adam, {"lr": 0.05}, **schedule),
        }
        driver = build(**(parts | settings))
        point.driver = driver
        driver.steps = (train, validation)  # type: ignore[attr-defined]
        return driver

    return new


def go(driver: Driver) -> None:
    driver.run(*driver.steps)  # type: ignore[attr-defined]


def essence(folder: Path) -> dict[str, Any]:
    """Return what must be equal; of checkpoints, those that every run has."""
    run = Run(folder)
    return {
        "samples": [(one["step"], one["sample"], one["score"]) for one in run.requests()],
        "records": run.records(),
        "steps": [{k: v for k, v in one.items() if k != "seconds"} for one in run.steps()],
        "checkpoints": {
            one["file"]: (folder / "ckpt" / one["file"]).read_bytes()
            for one in run.checkpoints()
            if one["phase"] != "training"
        },
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "augmented blocks": {},
    "single items": {"pool": Single},
    "validated": {"validate": True},
    "single items, ragged batch dropped": {"pool": Single, "drop_last": True},
    "workers": {"pool": Single, "num_dataloader_workers": 1, "max_active_learning_steps": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_batch_is_trained_on_twice(make: Make, name: str) -> None:
    counting = Points()
    whole = make("whole", counting, **SETTINGS[name])
    go(whole)
    expected = essence(whole.log_dir)
    for place in range(1, counting.passed + 1, 1 if name == "augmented blocks" else 3):
        point = Points(place)
        with pytest.raises(Interrupted):
            go(make(f"end-{place}", point, **SETTINGS[name]))
        rest = Points()
        again = make(f"end-{place}", rest, **SETTINGS[name])
        again.restore()
        go(again)
        assert essence(again.log_dir) == expected, (place, point.seen[-1])
        both = point.seen + rest.seen
        assert both.count("train") == counting.seen.count("train"), (place, point.seen[-1])
        assert both.count("label") - counting.seen.count("label") == (point.seen[-1] == "label")  # it wasn't put


def test_interrupted_again_and_again(make: Make) -> None:
    whole_points = Points()
    whole = make("whole", whole_points, validate=True)
    go(whole)
    trained = 0
    for attempt in range(100):
        point = Points(4 + attempt % 3)
        driver = make("often", point, validate=True)
        if attempt:
            driver.restore()
        try:
            go(driver)
        except Interrupted:
            trained += point.seen.count("train")
            continue
        trained += point.seen.count("train")
        break
    assert attempt > 5
    assert trained == whole_points.seen.count("train")
    assert essence(driver.log_dir) == essence(whole.log_dir)


def test_the_checkpoint_is_named_by_epoch_and_batch(make: Make) -> None:
    with pytest.raises(Interrupted):
        go(make("run", Points(3)))  # the first point is the check of the query strategy
    driver = make("run", Points())
    files = [one["file"] for one in Run(driver.log_dir).checkpoints()]
    assert files == ["initial.safetensors", "000000-training-000000_000002.safetensors"]


def test_a_loop_that_does_not_say_so_is_not_saved_inside_an_epoch(make: Make) -> None:
    class Other(DefaultTrainingLoop):
        resumes_inside_epoch = False

    counting = Points()
    whole = make("whole", counting, train_loop_fn=Other())
    go(whole)
    with pytest.raises(Interrupted):
        go(make("run", Points(2), train_loop_fn=Other()))
    again = make("run", Points(), train_loop_fn=Other())
    assert len(Run(again.log_dir).checkpoints()) == 1
    again.restore()
    go(again)
    assert essence(again.log_dir) == essence(whole.log_dir)


def test_batches_that_cannot_be_stored_are_fetched_again(make: Make) -> None:
    whole = make("whole", Points(), pool=Named)
    go(whole)
    with pytest.raises(Interrupted):
        go(make("run", Points(2), pool=Named))
    again = make("run", Points(), pool=Named)
    assert len(Run(again.log_dir).checkpoints()) == 1
    again.restore()
    go(again)
    assert essence(again.log_dir) == essence(whole.log_dir)


def test_a_failed_labeler_does_not_cost_the_training(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Points()
    whole = make("whole", counting)
    go(whole)
    point = Points()
    driver = make("run", point)
    with monkeypatch.context() as patched:
        patched.setattr(Echo, "label", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(driver)
    rest = Points()
    again = make("run", rest)
    again.restore()
    go(again)
    assert essence(again.log_dir) == essence(whole.log_dir)
    assert (point.seen + rest.seen).count("train") == counting.seen.count("train")


def test_a_learner_without_trainable_parameters_is_not_saved_behind_training(make: Make) -> None:
    def nothing(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **_: Any) -> None:
        assert optimizer is None

    frozen = learner().requires_grad_(False)
    point = Points(1)
    driver = make("run", point, learner=frozen, train_loop_fn=nothing)
    with pytest.raises(Interrupted):
        go(driver)
    assert [one["file"] for one in Run(driver.log_dir).checkpoints()] == ["initial.safetensors"]
