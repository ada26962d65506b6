"""What is saved inside a step: a run that is asked to end, or that fails after training, keeps what was trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from alcore_testing.essence import differences, essence_of
from alcore_torchloop import DefaultTrainingLoop

import alcore
from alcore import Driver, TensorPool
from alcore import config as c
from alcore.distributed.ranks import Ranks
from alcore.driver.checkpointing import Checkpointer
from alcore.errors import Interrupted
from alcore.protocols import Phase
from alcore.store import checkpoints
from alcore.store.reading import Run
from alcore.store.run import RunStore
from alcore.strategies import BaseMetrology, PointwiseQuery

Make = Callable[..., Driver]


# -- the state as a whole ------------------------------------------------------------------------------------


class Part:
    """Has state, and takes it back."""

    def __init__(self, **seen: Any) -> None:
        self.seen: Mapping[str, Any] = seen

    def state_dict(self) -> Mapping[str, Any]:
        return self.seen

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.seen = saved


def checkpointer(learner: Any = None, loop: Any = None, optimization: Any = None, **parts: Any) -> Checkpointer:
    trainer = SimpleNamespace(loop=loop, optimization=optimization)
    return Checkpointer(learner, trainer, parts.get("strategies", {}), parts.get("listeners", {}), Ranks())  # type: ignore[arg-type]


def collect(of: Checkpointer) -> dict[str, Any]:
    return of.collect(step=3, phase="labeling", epoch=0)


def test_every_part_is_collected() -> None:
    learner = torch.nn.Linear(2, 1)
    state = collect(
        checkpointer(
            learner,
            Part(captured=1),
            SimpleNamespace(state=lambda: {"optimizer": {"lr": 1}, "scheduler": {"milestones": {2: 1}}}),
            strategies={"uq": Part(count=3), "first": object()},
            listeners={"patience": Part(best=0.5), "bar": object()},
        )
    )
    assert state["at"] == {"step": 3, "phase": "labeling", "epoch": 0, "record": {}}
    assert list(state["model"]) == ["weight", "bias"]
    assert (state["optimizer"], state["scheduler"]) == ({"lr": 1}, {"milestones": {2: 1}})
    assert state["strategies"] == {"uq": {"count": 3}}
    assert state["plugins"] == {"patience": {"best": 0.5}}
    assert state["loop"] == {"captured": 1}
    assert set(state["rng"]) >= {"torch", "numpy", "python"}


def test_parts_without_state_are_left_out() -> None:
    state = collect(checkpointer(object(), lambda: None))
    assert state["model"] == state["strategies"] == state["plugins"] == {}
    assert state["optimizer"] is state["scheduler"] is state["loop"] is None


def test_collected_state_survives_a_checkpoint(tmp_path: Path) -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    learner[0].weight = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2).T)
    state = collect(checkpointer(learner))
    published = checkpoints.publish(tmp_path, "c", state)
    loaded = checkpoints.load(tmp_path / published.file, published.sha256)
    assert list(loaded["model"]) == list(learner.state_dict())
    assert all(torch.equal(loaded["model"][name], value) for name, value in learner.state_dict().items())
    assert loaded["at"] == state["at"]
    assert checkpoints.publish(tmp_path, "again", loaded).sha256 == published.sha256


def test_parts_and_generators_get_their_state_back() -> None:
    def made(**seen: Any) -> tuple[Checkpointer, list[Part]]:
        parts = [Part(**seen) for _ in range(3)]
        return checkpointer(
            object(), parts[0], strategies={"uq": parts[1], "plain": object()}, listeners={"patience": parts[2]}
        ), parts

    saved = collect(made(count=3)[0])
    saved["strategies"]["gone"] = {"a": 1}
    torch.rand(1)
    fresh, parts = made(count=0)
    assert fresh.restore(saved, seed=0) == ["the run had a strategy 'gone' with state, and this driver has none"]
    assert [part.seen for part in parts] == [{"count": 3}] * 3
    assert torch.equal(torch.get_rng_state(), saved["rng"]["torch"])


# -- a run that ends inside a step ---------------------------------------------------------------------------


class Points:
    """Counts places by kind, and asks the run to end at one of them."""

    def __init__(self, end_at: int | None = None, kind: str = "") -> None:
        self.end_at, self.kind = end_at, kind
        self.seen: list[str] = []
        self.driver: Driver | None = None

    def __call__(self, kind: str) -> None:
        self.seen.append(kind)
        if kind.startswith(self.kind) and sum(name.startswith(self.kind) for name in self.seen) == self.end_at:
            assert self.driver is not None
            self.driver.interrupt()


class Noisy(TensorPool):
    """A pool that augments what is trained on, from every global generator, several batches at a time."""

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = super().batch(positions)
        return inputs + torch.randn(inputs.shape) * random.random() * float(np.random.random()), targets


class Single(TensorPool):
    """The same by single items, which are collated by torch's DataLoader."""

    batch = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, target = super().__getitem__(index)
        return inputs + torch.randn(inputs.shape) * random.random(), target


class Unsure(PointwiseQuery):
    def __init__(self, point: Points) -> None:
        super().__init__(3)
        self.point = point

    def score(self, outputs: Any) -> torch.Tensor:
        self.point("query")
        return -outputs.flatten().abs()


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


def loss_of(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float())


@pytest.fixture
def make(build: Make, toys: Any) -> Make:
    def new(
        run_id: str, point: Points, pool: type[TensorPool] = Noisy, validate: bool = False, **settings: Any
    ) -> Driver:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        plain = toys.pool(n=60, labeled=14)

        class Echo(toys.EchoLabel):  # type: ignore[misc]
            idempotent = True

            def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
                point("label")
                super().label(queue_to_label, serialize_queue)

        def made(kind: type[TensorPool], labeled: Any) -> TensorPool:
            return kind(plain.inputs(torch.arange(60)), torch.arange(60) % 2, labeled=labeled)

        def train(model: Any, batch: Any) -> torch.Tensor:
            point("train")
            return loss_of(model, batch)

        def validation(model: Any, batch: Any) -> torch.Tensor:
            point("validate")
            return loss_of(model, batch) + torch.rand(())

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
            "label_strategy": Echo(),
            "metrology_strategies": [Draws(point)],
            "optimizer_config": c.OptimizerConfig(torch.optim.Adam, {"lr": 0.05}, **schedule),
        }
        point.driver = driver = build(**(parts | settings))
        driver.steps = (train, validation if validate else None)  # type: ignore[attr-defined]
        return driver

    return new


def go(driver: Driver) -> None:
    driver.run(*driver.steps)  # type: ignore[attr-defined]


def go_on(driver: Driver) -> Driver:
    driver.restore()
    go(driver)
    return driver


def outcome(driver: Driver) -> dict[str, Any]:
    """Return what must be equal; of checkpoints, those that every run has."""
    essence = essence_of(driver.log_dir)
    essence["checkpoints"] = {name: digest for name, digest in essence["checkpoints"].items() if "training" not in name}
    return essence


def inside(driver: Driver) -> list[str]:
    """Return the checkpoints inside steps, by step and epoch."""
    return [
        f"{checkpoint['step']}.{checkpoint['epoch']}"
        for checkpoint in Run(driver.log_dir).checkpoints()
        if checkpoint["phase"] == "training"
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "augmented blocks": {},
    "single items": {"pool": Single},
    "validated": {"validate": True},
    "single items, ragged batch dropped": {"pool": Single, "drop_last": True},
    "workers": {"pool": Single, "num_dataloader_workers": 1, "max_active_learning_steps": 1},
    "optimizer kept": {"reset_optim_states": False},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_run_asked_to_end_at_any_place_goes_on_from_its_last_finished_epoch(make: Make, name: str) -> None:
    counting = Points()
    whole = make("whole", counting, **SETTINGS[name])
    go(whole)
    expected = outcome(whole)
    per_epoch = 3 if SETTINGS[name].get("drop_last") else 4  # batches of the last epoch, the longest
    for place in range(1, len(counting.seen) + 1, 1 if name == "augmented blocks" else 3):
        point = Points(place)
        with pytest.raises(Interrupted):
            go(make(f"end-{place}", point, **SETTINGS[name]))
        rest = Points()
        again = go_on(make(f"end-{place}", rest, **SETTINGS[name]))
        assert differences(outcome(again), expected) == [], (place, point.seen[-1])
        trained = (point.seen + rest.seen).count("train") - counting.seen.count("train")
        assert 0 <= trained <= (per_epoch if point.seen[-1] in ("train", "validate") else 0), (place, point.seen)


def test_run_interrupted_again_and_again_equals_an_uninterrupted_one(make: Make) -> None:
    whole = make("whole", Points(), validate=True)
    go(whole)
    for attempt in range(100):
        driver = make("often", Points(6 + attempt % 3), validate=True)
        if attempt:
            driver.restore()
        try:
            go(driver)
        except Interrupted:
            continue
        break
    assert 4 < attempt < 99
    assert differences(outcome(driver), outcome(whole)) == []


@pytest.mark.parametrize(("place", "saved"), [(1, []), (2, []), (3, ["0.1"]), (4, ["0.1"]), (6, ["0.2"])], ids=str)
def test_interruption_ends_after_the_batch_and_keeps_the_last_finished_epoch(
    make: Make, place: int, saved: list[str]
) -> None:
    point = Points(place, "train")
    driver = make("r", point)
    with pytest.raises(Interrupted):
        go(driver)
    assert point.seen.count("train") == place
    assert inside(driver) == saved
    assert Run(driver.log_dir).meta()["status"] == "interrupted"


def test_second_interruption_saves_nothing(make: Make) -> None:
    class Impatient(Draws):
        def compute(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    driver = make("r", Points(), metrology_strategies=[Impatient(Points())])
    with pytest.raises(KeyboardInterrupt):
        go(driver)
    assert inside(driver) == []


def failing(place: int, error: BaseException) -> Any:
    """Return a training step that raises in one batch."""
    calls = iter(range(99))

    def step(model: Any, batch: Any) -> torch.Tensor:
        if next(calls) == place:
            raise error
        return loss_of(model, batch)

    return step


def test_training_that_fails_saves_nothing(make: Make) -> None:
    driver = make("r", Points())
    with pytest.raises(ZeroDivisionError):
        driver.run(failing(4, ZeroDivisionError()))
    assert inside(driver) == []


@pytest.mark.parametrize("hook", ["metrology", "query", "label"])
def test_later_phase_that_fails_keeps_the_trained_learner(
    make: Make, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Points()
    whole = make("whole", counting)
    go(whole)
    point = Points()
    driver = make("r", point)
    part = {
        "metrology": driver.metrology_strategies[0], "query": driver.query_strategies[0], "label": driver.label_strategy
    }[hook]  # fmt: skip
    method = {"metrology": "compute", "query": "sample", "label": "label"}[hook]
    monkeypatch.setattr(part, method, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(driver)
    assert inside(driver) == ["0.2"]
    rest = Points()
    again = go_on(make("r", rest))
    assert differences(outcome(again), outcome(whole)) == []
    assert (point.seen + rest.seen).count("train") == counting.seen.count("train")


def test_full_disk_in_a_later_phase_saves_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make("r", Points())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(driver.metrology_strategies[0], "compute", full)
    with pytest.raises(OSError, match="No space"):
        go(driver)
    assert inside(driver) == []


def test_failure_to_save_is_noted_in_the_error_that_ended_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make("r", Points())
    monkeypatch.setattr(driver.metrology_strategies[0], "compute", lambda *_: 1 / 0)

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(RunStore, "commit_checkpoint", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        go(driver)
    assert any("no checkpoint could be saved: OSError" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(("every", "saved"), [(0, []), (1, ["0.1", "0.2", "0.3"]), (2, ["0.2"])])
def test_model_checkpoint_frequency_counts_epochs(make: Make, every: int, saved: list[str]) -> None:
    settings = {"max_training_epochs": 3, "max_active_learning_steps": 1}
    driver = make("r", Points(), model_checkpoint_frequency=every, **settings)
    go(driver)
    assert inside(driver) == saved


def test_epoch_counts_go_on_in_a_resumed_training(make: Make) -> None:
    settings = {"max_training_epochs": 3, "max_active_learning_steps": 1, "model_checkpoint_frequency": 2}
    driver = make("r", Points(4, "train"), **settings)
    with pytest.raises(Interrupted):
        go(driver)
    assert inside(driver) == ["0.1"]
    again = go_on(make("r", Points(), **settings))
    assert inside(again) == ["0.1", "0.2"]
    assert Run(again.log_dir).steps()[0]["epochs"] == 3


def test_learner_without_trainable_parameters_is_not_trained_again(make: Make) -> None:
    trainings = []

    def fit(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **_: Any) -> None:
        assert optimizer is None
        trainings.append(1)
        next(model.parameters()).data.fill_(len(trainings))

    def fitted(point: Points) -> Driver:
        frozen = learner().requires_grad_(False)
        return make("r", point, learner=frozen, train_loop_fn=fit, max_active_learning_steps=1)

    driver = fitted(Points(1, "metrology"))
    with pytest.raises(Interrupted):
        go(driver)
    assert inside(driver) == ["0.0"]
    again = go_on(fitted(Points()))
    assert trainings == [1]
    assert float(next(again.learner.parameters()).flatten()[0]) == 1


# -- loops with state ----------------------------------------------------------------------------------------


class Patient:
    """A loop that ends when it has been called for so many epochs in all, which its state counts."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(
        self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any,
        on_epoch_end: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        for epoch in range(max_epochs):
            if not self.left:
                return
            for batch in train_dataloader:
                optimizer.zero_grad()
                train_step_fn(model, batch).backward()
                optimizer.step()
            self.left -= 1
            on_epoch_end(epoch, {"loss": float(self.left)})

    def state_dict(self) -> Mapping[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.left = state["left"]


@pytest.mark.parametrize("place", [4, 7, 9, 10])
def test_state_of_a_loop_is_that_of_the_last_finished_epoch(make: Make, place: int) -> None:
    def settings() -> dict[str, Any]:
        return {"train_loop_fn": Patient(4), "max_training_epochs": 9}

    whole = make("whole", Points(), **settings())
    go(whole)
    with pytest.raises(Interrupted):
        go(make("cut", Points(place, "train"), **settings()))
    again = go_on(make("cut", Points(), **settings()))
    assert differences(outcome(again), outcome(whole)) == []


@pytest.mark.parametrize("place", [2, 4, 7, 8, 10, 12])
def test_early_stopping_counts_on_after_an_interruption(make: Make, place: int) -> None:
    def settings() -> dict[str, Any]:
        return {
            "train_loop_fn": DefaultTrainingLoop(patience=2), "max_training_epochs": 20, "validate": True,
            "max_active_learning_steps": 1,
        }  # fmt: skip

    whole_points = Points()
    whole = make("whole", whole_points, **settings())
    go(whole)
    epochs = Run(whole.log_dir).steps()[0]["epochs"]
    assert 2 < epochs < 20
    assert place <= whole_points.seen.count("train")
    with pytest.raises(Interrupted):
        go(make("cut", Points(place, "train"), **settings()))
    again = go_on(make("cut", Points(), **settings()))
    assert differences(outcome(again), outcome(whole)) == []


def test_loop_that_ended_early_is_not_called_again_where_a_later_phase_was_cut_off(make: Make) -> None:
    with pytest.raises(Interrupted):
        go(make("r", Points(1, "metrology"), train_loop_fn=Patient(2), max_training_epochs=9))
    point = Points()
    again = make("r", point, train_loop_fn=Patient(99), max_training_epochs=9, max_active_learning_steps=1)
    go_on(again)
    assert "train" not in point.seen
    assert Run(again.log_dir).steps()[0]["epochs"] == 2


def test_listener_state_of_a_kept_checkpoint_is_that_of_its_epoch(make: Make) -> None:
    """What changes after the training is not in the checkpoint that is saved later."""

    class Counts:
        phases = 0

        @alcore.runhook
        def alcore_phase_start(self, phase: Phase) -> None:
            self.phases += 1

        def state_dict(self) -> Mapping[str, Any]:
            return {"phases": self.phases}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.phases = state["phases"]

    with pytest.raises(Interrupted):
        go(make("r", Points(1, "label"), plugins=[Counts()]))
    again = make("r", Points(), plugins=[counts := Counts()])
    again.restore()
    assert counts.phases == 1
    go(again)
