"""A run that was interrupted and taken up again equals one that never was, byte for byte."""

from __future__ import annotations

import json
import logging
import queue
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alcore_testing.essence import differences, essence_of
from helpers.experiment import Cut, Paid, Points, Smoothed, Wandering

import alcore
from alcore import Driver, UsageError
from alcore import config as c
from alcore.driver import resume
from alcore.errors import RunLockedError
from alcore.plugins import discovery
from alcore.store.reading import Run
from alcore.strategies import PointwiseQuery


class Unsure(PointwiseQuery):
    def score(self, outputs: Any) -> torch.Tensor:
        return -outputs.flatten().abs()


class Noting(Paid):
    """Notes what it was paid for; some requests fail at first."""

    def __init__(self, point: Points, asked: list[Any]) -> None:
        super().__init__(
            point,
            lambda request: asked.append((request.id, request.attempt)),
            fails=lambda request: request.item % 7 == 3 and request.attempt == 0,
        )

    def answer(self, request: Any, serialize_queue: Any) -> None:
        random.random(), torch.rand(())  # which nothing after it may notice
        super().answer(request, serialize_queue)


class Patience:
    """A stop criterion with state."""

    def __init__(self) -> None:
        self.seen = 0

    @alcore.runhook
    def alcore_should_stop(self) -> str | None:
        self.seen += 1
        return "five were enough" if self.seen == 5 else None

    def state_dict(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Learner(torch.nn.Module):
    """Dropout draws from the global generator while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


class Scaled(Learner):
    """Divides by what it saw of the labels of its first training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))

    def begin_training(self, batches: Any) -> None:
        if not self.share:
            self.share.fill_(torch.cat([targets for _, targets in batches]).double().mean() + torch.rand(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) / (self.share or 1.0)


Make = Callable[..., Driver]


@pytest.fixture
def make(tmp_path: Path, toys: Any) -> Make:
    """Return a function that builds the experiment anew, whatever the state of the global generators."""

    def build(
        point: Points, run_id: str, asked: list[Any] | None = None, steps: int = 4, learner: Any = None, **settings: Any
    ) -> Driver:
        torch.manual_seed(99)
        random.seed(99)
        np.random.seed(99)
        labels: list[Any] = [] if asked is None else asked

        def step(model: Any, batch: Any) -> torch.Tensor:
            point()
            inputs, targets = batch
            return torch.nn.functional.binary_cross_entropy_with_logits(model(inputs).flatten(), targets.float())

        schedule = {
            "scheduler_cls": torch.optim.lr_scheduler.StepLR,
            "scheduler_kwargs": {"step_size": 2, "gamma": 0.5},
        }
        driver = Driver(
            config=c.DriverConfig(
                batch_size=8,
                max_active_learning_steps=steps,
                run_id="r",  # which request ids depend on
                root_log_dir=tmp_path / run_id,
                seed=5,
                fine_tuning_lr=0.01,
                label_retries=1,
                **settings.pop("config", {}),
            ),
            learner=learner() if isinstance(learner, type) else learner or Learner(),
            strategies_config=c.StrategiesConfig(
                [Wandering(point), Unsure(2)], queue.Queue, Noting(point, labels), [Smoothed(point)]
            ),
            training_config=c.TrainingConfig(
                train_datapool=settings.pop("pool", None) or toys.pool(),
                max_training_epochs=3,
                max_fine_tuning_epochs=2,
                optimizer_config=c.OptimizerConfig(torch.optim.Adam, {"lr": 0.05}, **schedule),
                **settings,
            ),
            plugins=[Patience()],
        )
        driver.train_step = step  # type: ignore[attr-defined]
        return driver

    return build


def go(driver: Driver) -> None:
    driver.run(train_step_fn=driver.train_step)  # type: ignore[attr-defined]


SETTINGS = {
    "each step": {},
    "every second step": {"config": {"checkpoint_interval": 2}},
    "none but the first": {"config": {"checkpoint_interval": 0}},
    "each epoch": {"config": {"model_checkpoint_frequency": 1}},
    "optimizer kept": {"config": {"reset_optim_states": False}},
    "learner reset": {"reset_learner": True, "config": {"model_checkpoint_frequency": 2}},
    "looks at labels": {"learner": Scaled, "config": {"model_checkpoint_frequency": 1}},
    "looks at labels anew": {"learner": Scaled, "reset_learner": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_cut_at_any_point_and_resumed_equals_uninterrupted(make: Make, name: str, tmp_path: Path) -> None:
    def settings() -> dict[str, Any]:
        return {key: dict(value) if isinstance(value, dict) else value for key, value in SETTINGS[name].items()}

    counting, whole_asked = Points(None), []
    whole = make(counting, "whole", whole_asked, **settings())
    go(whole)
    expected = essence_of(whole.log_dir)
    assert len(expected["requests"]) == 12
    places = range(1, counting.passed + 1) if name == "each step" else range(1, counting.passed + 1, 3)
    for place in places:
        asked: list[Any] = []
        run_id = f"cut-{place}"
        with pytest.raises(Cut):
            go(make(Points(place), run_id, asked, **settings()))
        again = make(Points(None), run_id, asked, **settings())
        again.restore()
        go(again)
        assert differences(essence_of(again.log_dir), expected) == [], place
        assert len(asked) == len(set(asked)) == len(whole_asked), "a label was paid for twice, or never"


def test_cut_many_times_equals_uninterrupted(make: Make) -> None:
    whole = make(Points(None), "whole")
    go(whole)
    with pytest.raises(Cut):
        go(make(Points(11), "often"))
    cuts = 1
    while True:
        driver = make(Points(23), "often")
        driver.restore()
        try:
            go(driver)
        except Cut:
            cuts += 1
            continue
        break
    assert cuts > 2
    assert differences(essence_of(driver.log_dir), essence_of(whole.log_dir)) == []


def test_a_finished_run_is_extended_as_if_it_had_been_longer(make: Make) -> None:
    long = make(Points(None), "long", steps=4)
    go(long)
    go(make(Points(None), "short", steps=2))
    again = make(Points(None), "short", steps=4)
    again.restore()
    go(again)
    assert differences(essence_of(again.log_dir), essence_of(long.log_dir)) == []


def test_a_finished_run_has_nothing_left_to_do(make: Make) -> None:
    first = make(Points(None), "done")
    go(first)
    before = essence_of(first.log_dir)
    points = Points(None)
    again = make(points, "done")
    again.restore()
    go(again)
    assert points.passed == 0
    assert differences(essence_of(again.log_dir), before) == []


def test_a_stop_criterion_keeps_its_count(make: Make) -> None:
    whole = make(Points(None), "whole", steps=9)
    go(whole)
    assert whole.stop_reason == "five were enough"
    with pytest.raises(Cut):
        go(make(Points(40), "cut", steps=9))
    again = make(Points(None), "cut", steps=9)
    again.restore()
    go(again)
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


def test_the_record_stands_where_a_replay_comes_out_otherwise(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Cut):
        go(make(Points(40), "run", config={"checkpoint_interval": 0}))
    before = Run(make(Points(None), "run").log_dir)
    recorded = before.requests(0), before.records()["smoothed"][0]
    again = make(Points(None), "run", config={"checkpoint_interval": 0})
    again.query_strategies[0].calls = 5
    again.metrology_strategies[0].mean = 3.0
    again.restore()
    again.query_strategies[0].calls = 5  # this strategy is not what it was
    again.metrology_strategies[0].mean = 3.0
    with caplog.at_level(logging.WARNING):
        again.logger.addHandler(caplog.handler)
        go(again)
    run = Run(again.log_dir)
    assert (run.requests(0), run.records()["smoothed"][0]) == recorded
    assert again.metrology_strategies[0].records[0] == recorded[1]
    assert "wandering asked for other samples when step 0 was replayed" in caplog.text
    assert "smoothed measured differently when step 0 was replayed" in caplog.text


def test_replayed_steps_are_marked_in_the_console_log(make: Make) -> None:
    with pytest.raises(Cut):
        go(make(Points(40), "run", config={"checkpoint_interval": 0}))
    again = make(Points(None), "run", config={"checkpoint_interval": 0})
    again.restore()
    go(again)
    lines = (again.log_dir / "console.log").read_text().splitlines()
    marked = [line for line in lines if "[replay]" in line and ": step" not in line and " step " in line]
    assert [line.split(" step ")[1][0] for line in marked][:1] == ["0"]
    assert "[replay]" not in lines[-1]
    assert sum("begins in" in line for line in lines) == 1
    assert sum("goes on in" in line for line in lines) == 1


def test_another_pool_is_refused(make: Make, toys: Any) -> None:
    go(make(Points(None), "run", steps=1))
    again = make(Points(None), "run", pool=toys.pool(labeled=9))
    with pytest.raises(UsageError, match="the train pool is not the one"):
        again.restore()
    make(Points(None), "run").restore()  # and the run is not left locked


def test_another_learner_is_refused(make: Make) -> None:
    go(make(Points(None), "run", steps=1))
    with pytest.raises(UsageError, match="the learner is not the one of this run"):
        make(Points(None), "run", learner=torch.nn.Linear(2, 1)).restore()


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_offered(make: Make) -> None:
    whole = make(Points(None), "whole")
    go(whole)
    go(make(Points(None), "run", steps=2))
    folder = make(Points(None), "run").log_dir / "ckpt"
    last = folder / "000001-labeling-000000.safetensors"
    data = bytearray(last.read_bytes())
    data[-3] ^= 1
    last.write_bytes(data)
    with pytest.raises(UsageError, match=r"--checkpoint 000000-labeling-000000\.safetensors"):
        make(Points(None), "run").restore()
    again = make(Points(None), "run")
    again.restore("000000-labeling-000000.safetensors")
    go(again)
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


def test_steps_that_were_called_by_hand_go_on(make: Make) -> None:
    by_hand = make(Points(None), "run")
    with by_hand.session(by_hand.train_step):  # type: ignore[attr-defined]
        by_hand.active_learning_step(by_hand.train_step)  # type: ignore[attr-defined]
    again = make(Points(None), "run", steps=2)
    again.restore()
    go(again)
    assert again.stop_reason == "all 2 steps are done"


def test_the_log_leaves_out_what_only_the_writer_needs(make: Make) -> None:
    driver = make(Points(None), "run", steps=1)
    go(driver)
    log = json.loads((driver.log_dir / "driver_log.json").read_text())
    assert "label_strategy" not in log
    assert "label_strategy" not in Run(driver.log_dir).meta()
    assert Run(driver.log_dir).read("SELECT 1 FROM label_strategy")


def test_no_such_run(make: Make) -> None:
    with pytest.raises(UsageError, match=r"there is no run 'r' in .*ghost"):
        make(Points(None), "ghost").restore()


def test_a_run_that_is_being_written_is_refused(make: Make) -> None:
    first = make(Points(None), "run")
    with first.session(first.train_step), pytest.raises(RunLockedError, match="process"):  # type: ignore[attr-defined]
        make(Points(None), "run").restore()


def test_a_changed_environment_is_told(make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    with pytest.raises(Cut):
        go(make(Points(30), "run"))
    again = make(Points(None), "run")
    again.logger.addHandler(caplog.handler)
    now, versions = resume.environment(), discovery.installed_versions()
    monkeypatch.setattr(resume, "environment", lambda: {**now, "torch": "9.9"})
    del versions["alcore-uq"]
    monkeypatch.setattr(discovery, "installed_versions", lambda: versions)
    again.restore()
    assert "torch was" in caplog.text
    assert "alcore-uq was 0.1.0 then" in caplog.text
    assert "not installed now" in caplog.text


def test_a_larger_budget_lets_a_run_go_on(make: Make) -> None:
    first = make(Points(None), "run", config={"budget": 2})
    go(first)
    assert "budget" in str(first.stop_reason)
    again = make(Points(None), "run", steps=9, config={"budget": 4})
    again.restore()
    go(again)
    run = Run(again.log_dir)
    spent = sum(request["cost"] or 0 for request in [*run.requests(), *run.refused()])
    assert 2 < spent <= 4


def test_a_run_that_cannot_be_opened_is_not_left_locked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(24, "Too many open files")

    go(make(Points(None), "run", steps=1))
    with monkeypatch.context() as patch:
        patch.setattr("alcore.driver.session.RunLog", fail)
        with pytest.raises(OSError, match="Too many"):
            make(Points(None), "run").restore()
    again = make(Points(None), "run", steps=2)
    again.restore()
    go(again)
    assert again.stop_reason == "all 2 steps are done"
