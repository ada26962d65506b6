"""What a run may spend, and how it ends where labels keep failing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alcore_testing import differences, essence_of, run_command
from helpers.experiment import Cut

from alcore import Driver, Failed, Label, Request
from alcore.driver.budget import Budget, FailureRate
from alcore.store.reading import Run
from alcore.strategies import BaseLabel

Answer = Callable[[Request], Any]


class Lab(BaseLabel):
    """Answers as it is told; counts what it has started, and fails once where that is wanted."""

    def __init__(self, answer: Answer, cut: int | None = None) -> None:
        self.answer, self.cut, self.started = answer, cut, 0
        self.idempotent = True

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            if self.started == self.cut:
                raise Cut
            self.started += 1
            serialize_queue.put(self.answer(request))


def failing(request: Request) -> Any:
    """Fail four times in five."""
    return (
        Label(request, 1) if request.ordinal % 5 == 0 else Failed(request.item, f"node {request.ordinal % 2} is down")
    )


def dear(request: Request) -> Any:
    """Cost more than was expected, by turns."""
    return Label(request, 1, cost=1.0 + request.ordinal % 3)


class TakesAll(Lab):
    """Takes all requests out at once, and gives back what it should not begin, if it is told to ask for that."""

    def __init__(self, answer: Answer, *, asks: bool = True) -> None:
        super().__init__(answer)
        self.asks = asks

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        taken = queue_to_label.get_many(1000)
        while taken:
            self.started += 1
            serialize_queue.put(self.answer(taken.pop(0)))
            for request in queue_to_label.recalled() if self.asks else ():
                taken = [other for other in taken if other.id != request.id]
                queue_to_label.give_back(request)
        assert queue_to_label.recalled() == []
        assert queue_to_label.get_many(1000) == []


@pytest.fixture
def make(build: Any, toys: Any) -> Callable[..., Driver]:
    def new(run_id: str, label: Any, **settings: Any) -> Driver:
        parts = {
            "run_id": run_id, "label_strategy": label, "skip_training": True, "metrology_strategies": None,
            "train_datapool": toys.pool(150), "query_strategies": [toys.FirstQuery(10)], "budget": 40.0,
            "max_active_learning_steps": 20,
        }  # fmt: skip
        driver: Driver = build(**(parts | settings))
        return driver

    return new


def paid(driver: Driver) -> float:
    run = Run(driver.log_dir)
    labels = sum(request["cost"] for request in run.requests() if request["cost"] is not None)
    return labels + sum(refusal["cost"] or 0 for refusal in run.refused())


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("answer", [failing, dear])
def test_no_more_is_started_than_the_budget_allows(make: Any, answer: Answer, retries: int) -> None:
    lab = Lab(answer)
    driver = make("r", lab, label_retries=retries, max_failure_rate=1.0)
    driver.run()
    assert driver.stop_reason == "the budget of 40 is spent"
    assert 38 <= paid(driver) <= 42  # the last answer may be dearer than was expected
    assert lab.started <= 40


def test_cost_of_which_nobody_says_is_the_mean_of_what_was_paid(make: Any) -> None:
    driver = make("r", Lab(lambda request: Label(request, 1, cost=4.0)), budget=100.0, max_active_learning_steps=2)
    driver.run()
    costs = [
        [row["cost"] for row in Run(driver.log_dir).read("SELECT cost FROM requests WHERE step = ?", step)]
        for step in (0, 1)
    ]
    assert costs == [[1.0] * 10, [4.0] * 10]


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: request.item,
        lambda request: Label(request, 1),
        lambda request: Failed(request, "down"),
        lambda request: Failed(request, "no such shape", "infeasible"),
    ],
    ids=["id", "label", "failed", "infeasible"],
)
def test_answer_that_says_no_cost_is_paid_as_expected(make: Any, toys: Any, answer: Answer) -> None:
    pool = toys.pool(150)
    pool.cost = lambda sample: 1.0 + sample % 3
    driver = make("r", Lab(answer), train_datapool=pool, max_failure_rate=1.0, max_active_learning_steps=1)
    driver.run()
    asked = [row["cost"] for row in Run(driver.log_dir).read("SELECT cost FROM requests")]
    assert len(set(asked)) == 3
    assert paid(driver) == pytest.approx(sum(asked))


@pytest.mark.parametrize("answer", [failing, dear])
@pytest.mark.parametrize("cut", [0, 3, 12])
def test_run_that_was_cut_off_spends_the_same(make: Any, answer: Answer, cut: int) -> None:
    whole = make("whole", Lab(answer), label_retries=1, max_failure_rate=1.0)
    whole.run()
    with pytest.raises(Cut):
        make("cut", Lab(answer, cut), label_retries=1, max_failure_rate=1.0).run()
    again = make("cut", Lab(answer), label_retries=1, max_failure_rate=1.0)
    again.restore()
    again.run()
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


def test_run_ends_where_labels_keep_failing_and_goes_on_when_it_is_resumed(make: Any, tmp_path: Path) -> None:
    lab = Lab(failing)
    driver = make("r", lab, budget=None)
    driver.run()
    assert lab.started == 5
    assert driver.stop_reason == (
        "labels keep failing: 4 of the last 5 answers were failures, more than max_failure_rate=0.5 allows"
    )
    run = Run(driver.log_dir)
    (step,) = run.steps()
    assert (step["labeled"], step["failed"], step["refused"]) == (1, 4, 0)
    assert [(refusal["count"], refusal["reason"]) for refusal in run.reasons()] == [
        (2, "node 0 is down"),
        (2, "node 1 is down"),
    ]
    for words in (["show", str(driver.log_dir)], ["show", str(driver.log_dir), "--step", "0"]):
        assert "node 0 is down" in run_command(tmp_path, *words).out
        assert json.loads(run_command(tmp_path, *words, "--json").out)["reasons"][0]["count"] == 2

    mended = make("r", Lab(lambda request: Label(request, 1)), budget=None, max_active_learning_steps=3)
    mended.restore()
    mended.run()
    assert mended.stop_reason == "all 3 steps are done"


def test_what_was_taken_out_is_recalled_where_labels_keep_failing(make: Any) -> None:
    lab = TakesAll(lambda request: Failed(request, "down"))
    driver = make("r", lab, budget=None)
    driver.run()
    assert lab.started == 5
    assert str(driver.stop_reason).startswith("labels keep failing: 5 of the last 5")
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["failed"] * 5 + ["open"] * 5

    mended = make("r", TakesAll(lambda request: Label(request, 1)), budget=None, max_active_learning_steps=2)
    mended.restore()
    mended.run()
    assert {request["state"] for request in Run(mended.log_dir).requests()[5:]} == {"labeled"}, (
        "what was given back is asked"
    )


def test_what_was_taken_out_is_recalled_where_it_is_over_the_budget(make: Any) -> None:
    lab = TakesAll(lambda request: Label(request, 1, cost=3.0))
    driver = make("r", lab, budget=12.0)
    driver.run()
    assert lab.started == 4
    assert paid(driver) == 12


def test_what_is_begun_all_the_same_is_accepted(make: Any) -> None:
    answer = lambda request: Failed(request, "down") if request.ordinal < 5 else Label(request, 1)  # noqa: E731
    driver = make("r", TakesAll(answer, asks=False), budget=None, max_active_learning_steps=1)
    driver.run()
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["failed"] * 5 + ["labeled"] * 5


@pytest.mark.parametrize("cut", [0, 2, 4])
def test_run_that_was_cut_off_ends_at_the_same_failure(make: Any, cut: int) -> None:
    whole = make("whole", Lab(failing), budget=None)
    whole.run()
    with pytest.raises(Cut):
        make("cut", Lab(failing, cut), budget=None).run()
    again = make("cut", Lab(failing), budget=None)
    again.restore()
    again.run()
    assert again.stop_reason == whole.stop_reason
    assert differences(essence_of(again.log_dir), essence_of(whole.log_dir)) == []


def test_refused_answers_are_failures_and_infeasible_items_are_not(make: Any) -> None:
    driver = make("r", Lab(lambda request: Label(request, "cat")), budget=None)
    driver.run()
    assert str(driver.stop_reason).startswith("labels keep failing: 5 of the last 5")
    driver = make("s", Lab(lambda request: Failed(request, "no such shape", "infeasible")), budget=None)
    driver.run()
    assert driver.stop_reason == "the pool has no unlabeled sample left"


def test_budget_is_exceeded_by_more_than_rounding() -> None:
    budget = Budget(0.3)
    budget.committed = 0.1 + 0.2
    assert not budget.is_exceeded
    budget.committed = 0.31
    assert budget.is_exceeded
    assert not Budget(None).is_exceeded


def test_failure_rate_looks_at_the_last_twenty_answers() -> None:
    rate = FailureRate(0.5)
    for _ in range(4):
        rate.add(failed=True)
    assert not rate.is_exceeded  # too few
    rate.begin([True] * 30)
    assert rate.counts == (20, 20)
    for _ in range(10):
        rate.add(failed=False)
    assert rate.counts == (10, 20)
    assert not rate.is_exceeded
    rate.add(failed=True)
    assert not rate.is_exceeded
    rate = FailureRate(1.0)
    rate.begin([True] * 20)
    assert not rate.is_exceeded
