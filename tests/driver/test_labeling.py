"""The labeling phase: the state of the label strategy, what its draws disturb, and what the training pool gets."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alcore import Driver
from alcore.codec import dumps, loads
from alcore.driver.labeling import LabelStrategyState
from alcore.protocols import Failed, Label
from alcore.randomness import global_rng_state
from alcore.store.reading import Run
from alcore.strategies import BaseLabel


class Counting:
    """A label strategy with state."""

    def __init__(self) -> None:
        self.n = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


def test_state_is_committed_with_the_step_of_its_answers_and_given_back() -> None:
    strategy = Counting()
    state = LabelStrategyState(strategy)
    state.begin(2)
    strategy.n = 7
    saved = state.to_store()
    assert saved is not None
    assert {name: loads(saved)[name] for name in ("step", "strategy")} == {"step": 2, "strategy": {"n": 7}}
    fresh = Counting()
    again = LabelStrategyState(fresh, saved)
    assert fresh.n == 7
    assert again.to_store() == saved  # an answer that comes before the next phase changes nothing


@pytest.mark.parametrize("strategy", [None, object(), BaseLabel()], ids=["none", "no state_dict", "empty state"])
def test_strategy_without_state_commits_nothing(strategy: Any) -> None:
    assert LabelStrategyState(strategy).to_store() is None


class Drawing(BaseLabel):
    """Draws from every global generator, or from those of its requests."""

    def __init__(self, *, disturbs: bool) -> None:
        self.disturbs, self.values = disturbs, []

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            value = int(torch.rand((), generator=self.generator(request.id)) > 0.5)
            if self.disturbs:
                random.random(), np.random.random(), torch.rand(3)
            self.values.append(value)
            serialize_queue.put(Label(request, value))


def test_global_generators_are_as_if_the_label_strategy_had_drawn_nothing(
    build: Any, toys: Any, tmp_path: Path
) -> None:
    found = []
    for disturbs in (False, True):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        driver = build(label_strategy=Drawing(disturbs=disturbs), run_id="r", root_log_dir=tmp_path / str(disturbs))
        torch.manual_seed(0)
        driver.run()
        found.append((dumps(global_rng_state()), driver.learner.weight.tolist()))
    assert found[0] == found[1]


class Scripted(BaseLabel):
    """Puts answers by the place of their requests."""

    def __init__(self, *answers: Any, then: Any = None) -> None:
        self.answers, self.then = answers, then

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        requests = [queue_to_label.get_request() for _ in range(queue_to_label.qsize())]
        for request, value in zip(requests, self.answers, strict=False):
            serialize_queue.put(Failed(request, "no") if value is None else Label(request, value))
        if self.then is not None:
            raise self.then


def untrained(build: Any, pool: Any, toys: Any, label: Any, **settings: Any) -> Driver:
    driver: Driver = build(
        train_datapool=pool, unlabeled_datapool=toys.pool(labeled=0), skip_training=True, label_strategy=label,
        metrology_strategies=None, max_active_learning_steps=1, **settings,
    )  # fmt: skip
    return driver


class Narrow(list[Any]):
    """A training pool that has no room for the value 1, unless it is wide."""

    def __init__(self, *, wide: bool = False) -> None:
        super().__init__()
        self.wide = wide

    def append(self, item: Any) -> None:
        _inputs, value = item
        if value == 1 and not self.wide:
            raise ValueError("no room for it")
        super().append(value)


def test_label_that_the_pool_refuses_is_set_aside_and_tried_again_at_resume(build: Any, toys: Any) -> None:
    pool = Narrow()
    driver = untrained(build, pool, toys, Scripted(0, 1, 0), run_id="r")
    driver.run()
    assert list(pool) == [0, 0]
    run = Run(driver.log_dir)
    assert [one["state"] for one in run.requests()] == ["labeled"] * 3
    (refused,) = run.refused()
    assert refused["reason"] == "the training pool refused it: ValueError: no room for it"
    assert run.steps()[0]["refused"] == 1
    for wide, expected in ((False, [0, 0]), (True, [0, 1, 0])):
        again = Narrow(wide=wide)
        driver = untrained(build, again, toys, Scripted(0, 0, 0), run_id="r")
        driver.restore()
        assert list(again) == expected
        driver.run()
    assert len(run.refused()) == 1


def test_label_strategy_that_fails_keeps_its_answers(build: Any) -> None:
    driver = build(label_strategy=Scripted(1, 0, then=ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        driver.run()
    assert [one["state"] for one in Run(driver.log_dir).requests()] == ["labeled", "labeled", "open"]
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8, 9]


def test_phase_counts_what_was_labeled_failed_and_refused(build: Any) -> None:
    driver = build(label_strategy=Scripted(1, None, 5), max_active_learning_steps=1)
    driver.run()
    run = Run(driver.log_dir)
    (step,) = run.steps()
    assert (step["labeled"], step["failed"], step["refused"]) == (1, 1, 1)
    assert [one["state"] for one in run.requests()] == ["labeled", "failed", "open"]
