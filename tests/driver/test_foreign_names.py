"""Names and arguments of PhysicsNeMo's active-learning module: each does what docs/from-physicsnemo.md says."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alcore_torchloop import DefaultTrainingLoop

import alcore
from alcore import DistributedManager, Driver, Label, Phase, UsageError
from alcore import config as c
from alcore.errors import AlcoreError
from alcore.protocols import Queue, RunContext
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery

Build = Callable[..., Driver]


def saved(driver: Driver) -> list[str]:
    """Return the steps and phases of a run's checkpoints, without the first."""
    return [
        f"{checkpoint['step']} {checkpoint['phase']}"
        for checkpoint in Run(driver.log_dir).checkpoints()
        if checkpoint["phase"] != "start"
    ]


# -- base classes ----------------------------------------------------------------------------------------------------


def test_attach_may_be_an_assignment(build: Build) -> None:
    class Query(BaseQuery):
        def attach(self, driver: Any) -> None:
            self.driver = driver

        def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
            query_queue.put(next(self.driver.candidates())[0])

    query = Query()
    assert not query.is_attached
    driver = build(query_strategies=[query])
    assert query.is_attached
    assert query.driver is driver
    assert query.logger is driver.logger
    driver.run()
    assert query.strategy_dir == driver.log_dir / "strategies" / "query"
    assert query.checkpoint_dir == query.strategy_dir / "checkpoints"
    assert query.checkpoint_dir.is_dir()


class Counting(BaseMetrology):
    """Sets up nothing in its own constructor, and may forget what it recorded."""

    def __init__(self, resets: bool) -> None:
        self.resets, self.calls = resets, 0

    def compute(self, *args: Any, **kwargs: Any) -> None:
        if self.resets:
            self.reset()
        self.calls += 1
        for turn in range(self.calls):
            self.append({"call": self.calls, "turn": turn})


@pytest.mark.parametrize("resets", [False, True])
def test_records_are_appended_counted_and_reset(build: Build, resets: bool) -> None:
    metrology = Counting(resets)
    assert len(metrology) == 0
    assert metrology, "a strategy without records is one"
    driver = build(metrology_strategies=[metrology])
    driver.run()
    expected = [{"call": call, "turn": turn} for call in (1, 2, 3) for turn in range(call)]
    assert Run(driver.log_dir).records()["counting"] == expected, "what was recorded is kept"
    assert metrology.records == (expected[-3:] if resets else expected)
    assert len(metrology) == len(metrology.records)


def test_names_of_annotations_are_there_and_may_have_parameters() -> None:
    assert alcore.DriverProtocol is RunContext
    assert alcore.ActiveLearningPhase is Phase
    assert [phase.value for phase in alcore.ActiveLearningPhase] == ["training", "metrology", "query", "labeling"]
    assert alcore.AbstractQueue[int]
    assert alcore.DataPool[tuple[int, int]] is alcore.DataPool
    for name in ("put", "get"):
        assert hasattr(alcore.AbstractQueue, name)
        assert hasattr(Queue, name)
    for name in ("training_step", "validation_step", "parameters"):
        assert hasattr(alcore.LearnerProtocol, name)


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)), ids=str)
def test_checkpoints_are_saved_after_the_phases_that_are_named(build: Build, flags: tuple[bool, ...]) -> None:
    named = {f"checkpoint_on_{phase}": flag for phase, flag in zip(Phase, flags, strict=True)}
    driver = build(**named)
    driver.run()
    expected = []
    for step in range(3):
        expected += [f"{step} training"] * any(flags[:3]) + [f"{step} labeling"] * flags[3]
    assert saved(driver) == expected


def test_checkpoints_after_training_are_saved_in_the_steps_of_the_interval(build: Build) -> None:
    for interval, expected in ((0, []), (2, ["1 training", "1 labeling", "2 labeling"])):
        driver = build(checkpoint_on_training=True, checkpoint_interval=interval)
        driver.run()
        assert saved(driver) == expected


def test_run_that_is_killed_after_training_does_not_train_again(build: Build, toys: Any) -> None:
    class Cut(BaseException):
        pass

    class Dying(toys.CountMetrology):  # type: ignore[misc]
        def compute(self, *args: Any, **kwargs: Any) -> None:
            if self.driver.active_learning_step_idx == 1:
                raise Cut
            super().compute()

    class Loop:
        trainings = 0

        def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **_: Any) -> None:
            self.trainings += 1

    def make(run_id: str, metrology: Any, **settings: Any) -> Driver:
        return build(run_id=run_id, metrology_strategies=[metrology], learner=toys.learner(), **settings)

    whole = make("whole", toys.CountMetrology())
    whole.run()
    with pytest.raises(Cut):
        make("cut", Dying(), checkpoint_on_training=True).run()
    loop = Loop()
    rest = make("cut", toys.CountMetrology(), train_loop_fn=loop)
    rest.restore()
    rest.run()
    assert loop.trainings == 1, "only that of step 2"
    assert len(rest.train_datapool) == len(whole.train_datapool)


@pytest.mark.parametrize("call", [lambda driver: driver.save_checkpoint("x"), lambda driver: driver.save_checkpoint()])
def test_saving_a_checkpoint_says_what_to_set(build: Build, call: Any) -> None:
    with pytest.raises(UsageError, match=r"checkpoint_interval=.*checkpoint_on_training.*model_checkpoint_frequency"):
        call(build())


def test_loading_a_checkpoint_says_what_to_call(build: Build) -> None:
    for call in (Driver.load_checkpoint, build().load_checkpoint):
        with pytest.raises(UsageError, match=r"driver\.restore\(\).*resume='auto'"):
            call("path", learner=None)


# -- the default loop --------------------------------------------------------------------------------------------------


def test_steps_of_the_loop_count_before_the_defaults_and_after_those_of_the_run(build: Build, toys: Any) -> None:
    seen: set[str] = set()

    def step(name: str) -> Any:
        def loss(model: Any, batch: Any) -> torch.Tensor:
            seen.add(name)
            return model(batch[0]).square().mean()

        return loss

    def loop() -> DefaultTrainingLoop:
        return DefaultTrainingLoop(train_step_fn=step("loop"), validate_step_fn=step("loop's check"))

    build(train_loop_fn=loop(), val_datapool=toys.pool()).run()
    assert seen == {"loop", "loop's check"}
    seen.clear()
    build(train_loop_fn=loop(), val_datapool=toys.pool()).run(step("run"), step("run's check"))
    assert seen == {"run", "run's check"}
    with pytest.raises(UsageError, match="validate_step_fn is given, and there is no validation pool"):
        build(train_loop_fn=loop()).run()


def test_another_device_or_dtype_than_that_of_the_run_is_refused_early(build: Build) -> None:
    for settings in ({"dtype": torch.float64}, {"device": "cuda"}):
        driver = build(train_loop_fn=DefaultTrainingLoop(**settings))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"the training loop can't be used here.*{next(iter(settings))} is"):
            driver.run()
        assert not driver.log_dir.exists()
    build(train_loop_fn=DefaultTrainingLoop(device="cpu", dtype=torch.float32)).run()


def test_checkpoint_frequency_of_the_loop_is_that_of_the_run(build: Build) -> None:
    driver = build(
        train_loop_fn=DefaultTrainingLoop(checkpoint_frequency=1), max_active_learning_steps=1, max_training_epochs=3
    )
    driver.run()
    assert saved(driver) == ["0 training"] * 3 + ["0 labeling"]
    with pytest.raises(UsageError, match="checkpoint_frequency=1, and DriverConfig says model_checkpoint_frequency=2"):
        build(train_loop_fn=DefaultTrainingLoop(checkpoint_frequency=1), model_checkpoint_frequency=2).run()


# -- processes, and runs without a pool ------------------------------------------------------------------------------


def test_manager_knows_whether_it_was_initialized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alcore.distributed.manager._initialized", [])
    assert not DistributedManager.is_initialized()
    DistributedManager.initialize()
    assert DistributedManager.is_initialized()
    assert DistributedManager().is_initialized()


class Inventing(BaseQuery):
    """Makes up inputs."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        query_queue.put(torch.rand(2, generator=self.generator("inputs")))


class Squares(BaseLabel):
    """Answers with the sum of squares."""

    idempotent = True

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            item = queue_to_label.get()
            serialize_queue.put(Label(item, item.square().sum()))


def without_pool(folder: Path, query: Any = None, run_id: str = "one", steps: int = 3) -> Driver:
    return Driver(
        c.DriverConfig(4, steps, run_id, root_log_dir=folder, skip_training=True, seed=0),
        torch.nn.Linear(2, 1),
        c.StrategiesConfig([query or Inventing()], queue.Queue, Squares()),
    )


def test_run_without_any_pool_queries_generated_items(tmp_path: Path) -> None:
    driver = without_pool(tmp_path)
    driver.run()
    assert driver.stop_reason == "all 3 steps are done"
    requests = Run(driver.log_dir).requests()
    assert [(request["step"], request["state"], request["sample"]) for request in requests] == [
        (i, "labeled", None) for i in range(3)
    ]
    longer = without_pool(tmp_path, steps=4)
    longer.restore()
    longer.run()
    whole = without_pool(tmp_path, run_id="two", steps=4)
    whole.run()
    both = [[request["item"] for request in Run(tmp_path / run).requests()] for run in ("one", "two")]
    assert len(both[0]) == 4
    assert both[0] == both[1]


def test_strategy_that_needs_a_pool_is_told_that_there_is_none(tmp_path: Path, toys: Any) -> None:
    with pytest.raises((UsageError, AlcoreError), match="no pool to choose from"):
        without_pool(tmp_path, toys.FirstQuery()).run()
