"""The labeling phase: the state of the label strategy, what its draws disturb, and what the training pool gets."""

from __future__ import annotations

import math
import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alcore import Driver
from alcore.codec import dumps, loads
from alcore.driver.labeling import LabelStrategyState
from alcore.errors import UsageError, Waiting
from alcore.protocols import Failed, Label, Request
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
    outcomes = []
    for disturbs in (False, True):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        driver = build(label_strategy=Drawing(disturbs=disturbs), run_id="r", root_log_dir=tmp_path / str(disturbs))
        torch.manual_seed(0)
        driver.run()
        outcomes.append((dumps(global_rng_state()), driver.learner.weight.tolist()))
    assert outcomes[0] == outcomes[1]


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
    assert [request["state"] for request in run.requests()] == ["labeled"] * 3
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
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled", "labeled", "open"]
    assert driver.train_datapool.labeled_ids.tolist()[8:] == [8, 9]


def test_phase_counts_what_was_labeled_failed_and_refused(build: Any) -> None:
    driver = build(label_strategy=Scripted(1, None, 5), max_active_learning_steps=1)
    driver.run()
    run = Run(driver.log_dir)
    (step,) = run.steps()
    assert (step["labeled"], step["failed"], step["refused"]) == (1, 2, 1)
    assert [request["state"] for request in run.requests()] == ["labeled", "failed", "failed"]


class Power(KeyboardInterrupt):
    """The power fails."""


class Solver(BaseLabel):
    """Has NaN for each third sample, however often it is asked, and for the one after it when it is asked first.

    Answers come by `route`: ``"put"``, ``"put_many"``, ``"poll"`` in the next phase, or ``"outside"``, when `label` has
    returned.
    """

    idempotent = True

    def __init__(self, route: str = "put", cut_at: int | None = None, *, after: bool = False) -> None:
        self.route, self.cut_at, self.after = route, cut_at, after
        self.asked: list[tuple[int, int]] = []
        self.known: dict[str, Any] = {}
        if route == "poll":
            self.poll = self.known.get

    def value(self, request: Request) -> Any:
        self.asked.append((request.item, request.attempt))
        is_bad = request.item % 3 == 0 or (request.item % 3 == 1 and request.attempt == 0)
        return math.nan if is_bad else request.item % 2

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            requests = queue_to_label.get_many(1 if self.route == "put" else 2)
            for request in requests:
                if len(self.asked) + 1 == self.cut_at and not self.after:
                    raise Power
                self.known[request.id] = Label(request, self.value(request), cost=2.0)
            answers = [self.known[request.id] for request in requests]
            if self.route == "put":
                serialize_queue.put(answers[0])
            elif self.route == "put_many":
                serialize_queue.put_many(answers)
            if len(self.asked) == self.cut_at:
                raise Power
        if self.route == "outside" and self.known:
            context = multiprocessing.get_context("fork")
            answers, self.known = list(self.known.values()), {}
            child = context.Process(target=lambda: serialize_queue.put_many(answers))
            child.start()
            child.join()


@pytest.mark.parametrize("route", ["put", "put_many", "poll", "outside"])
@pytest.mark.parametrize("retries", [0, 1])
def test_request_whose_answers_are_no_labels_fails_for_good_and_each_attempt_is_paid_once(
    build: Any, toys: Any, route: str, retries: int
) -> None:
    solver = Solver(route)
    driver = build(
        label_strategy=solver, max_active_learning_steps=5, label_retries=retries, max_failure_rate=1.0,
        query_strategies=[toys.FirstQuery(3)], skip_training=True, metrology_strategies=None,
    )  # fmt: skip
    driver.run()
    run = Run(driver.log_dir)
    assert len(solver.asked) == len(set(solver.asked)), "an attempt was made twice"
    assert max(attempt for _, attempt in solver.asked) == retries
    settled = [request for request in run.requests() if request["state"] != "open"]
    assert len(settled) >= 9
    for request in settled:
        is_label = request["sample"] % 3 == 2 or (request["sample"] % 3 == 1 and retries)
        assert request["state"] == ("labeled" if is_label else "failed")
    attempts = sum(request["attempt"] for request in run.requests())
    assert [refusal["cost"] for refusal in run.refused()] == [2.0] * attempts


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cut_at", range(1, 13))
def test_run_cut_off_among_bad_answers_ends_as_one_that_was_not(
    build: Any, toys: Any, tmp_path: Path, cut_at: int, *, after: bool
) -> None:
    def make(folder: str, **cut: Any) -> Driver:
        made: Driver = build(
            label_strategy=Solver(**cut), max_active_learning_steps=3, label_retries=1, max_failure_rate=1.0,
            query_strategies=[toys.FirstQuery(3)], budget=25.0, run_id="r", root_log_dir=tmp_path / folder,
        )  # fmt: skip
        return made

    make("whole").run()
    with pytest.raises(Power):
        make("cut", cut_at=cut_at, after=after).run()
    resumed = make("cut")
    resumed.restore()
    resumed.run()
    whole, cut = Run(tmp_path / "whole" / "r").decisions(), Run(tmp_path / "cut" / "r").decisions()
    assert cut == whole
    assert {row[-3] for row in whole["requests"]} >= {"failed", "labeled"}


def test_run_whose_labels_came_from_a_stand_in_goes_on_with_its_label_strategy(build: Any, toys: Any) -> None:
    driver: Driver = build(run_id="r", max_active_learning_steps=1)

    def label_first(queue_to_label: Any, serialize_queue: Any) -> None:
        if queue_to_label.qsize() == 3:
            serialize_queue.put(Label(queue_to_label.get_request(), 1))
        raise Waiting("that is enough")

    driver.label_with(label_first)
    driver.run()
    assert driver.stop_reason == "waiting for labels: that is enough"
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled", "open", "open"]
    with pytest.raises(UsageError, match=r"run r has begun; call label_with\(\) before"):
        driver.label_with(label_first)
    other: Driver = build(run_id="r", max_active_learning_steps=1)
    other.restore()
    other.run()
    assert {request["state"] for request in Run(other.log_dir).requests()} == {"labeled"}
    assert type(other.label_strategy) is toys.EchoLabel


def test_stand_in_that_waits_is_called_where_all_open_requests_are_taken(build: Any) -> None:
    driver: Driver = build(run_id="r", max_active_learning_steps=1)
    left: list[int] = []

    def label(queue_to_label: Any, serialize_queue: Any) -> None:
        left.append(queue_to_label.qsize())
        if len(left) == 1:
            queue_to_label.get_many(3)
            driver.tell([Label(driver.ask()[0], 1)])
        raise Waiting("for the lab")

    driver.label_with(label)
    driver.run()
    assert left == [3, 0]
