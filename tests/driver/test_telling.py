"""What becomes of answers that are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alcore_labelers import AskLabelStrategy

from alcore.driver import Driver
from alcore.errors import UsageError
from alcore.protocols import Failed, Label, Request
from alcore.store.reading import Run
from alcore.strategies import BaseLabel

_OTHER: Any = "broken"
Build = Callable[..., Driver]


@pytest.fixture
def driver(build: Build) -> Driver:
    """A driver that waits for three labels, of the samples 8, 9 and 10."""
    made = build(label_strategy=AskLabelStrategy(), run_id="r", label_retries=1)
    made.run()
    return made


def verdicts(driver: Driver, *answers: Any) -> list[tuple[str, str]]:
    return [(answer.verdict, answer.reason) for answer in driver.tell(answers).answers]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Label(8, 7), "it is not one of the 2 classes 0 to 1"),
        (Label(8, float("nan")), "its value is NaN or infinite"),
        (Label(8, 1, cost=-1.0), "its cost is -1.0, which is not a number of at least 0"),
        (Label(8, object()), "a object is not a label"),
        (Label(20, 1), "nobody asked for sample 20"),
        (Label("ff00", 1), "there is no request 'ff00'"),
        (Label(None, 1), "it names its request by a NoneType"),
        (Failed(8, "x", _OTHER), "its kind is 'broken'"),
        (1, "it is a int; give alcore.Label or alcore.Failed"),
    ],
)
def test_wrong_answer_is_refused_and_the_others_stand(driver: Driver, answer: Any, reason: str) -> None:
    first, second = verdicts(driver, answer, Label(9, 1))
    assert first[0] == "refused"
    assert reason in first[1]
    assert second == ("accepted", "")
    assert [request.sample for request in driver.ask()] == [8, 10]


def test_request_is_named_in_any_way(driver: Driver) -> None:
    eight, nine, ten = driver.ask()
    outcomes = verdicts(driver, Label(eight, 1), Label(nine.request.id[:8].upper(), 1), Failed(ten.request, "dark"))
    assert outcomes == [("accepted", "")] * 3
    assert driver.ask() == []


def test_answers_that_contradict_each_other_are_all_refused(driver: Driver) -> None:
    outcomes = verdicts(driver, Label(8, 1), Label(9, 0), Label(8, 0), Label(9, 0))
    assert outcomes[0] == outcomes[2] == ("refused", "answer 1 and answer 3 answer one request differently")
    assert outcomes[1::2] == [("accepted", ""), ("repeated", "answer 2 says the same")]


def test_reason_of_a_refusal_is_short_however_many_answers_contradict_each_other(driver: Driver) -> None:
    answers = [Label(8 + place % 2, place % 4 // 2) for place in range(1000)]
    outcomes = driver.tell([*answers, Label(10, 1)]).answers
    assert [answer.verdict for answer in outcomes] == ["refused"] * 1000 + ["accepted"]
    listed = "answer 1 and answer 3 and answer 5 and 497 others"
    assert {answer.reason for answer in outcomes[:1000:2]} == {f"{listed} answer one request differently"}
    assert max(len(answer.reason) for answer in outcomes) < 100


def test_digits_that_begin_one_request_name_it_and_no_others_do(driver: Driver) -> None:
    keys = [request.request.id for request in driver.ask()]
    names = [keys[1][:4], keys[0][:31], f"{keys[2]}0", "g000", keys[2][:3], ""]
    outcomes = verdicts(driver, *(Label(name, 1) for name in names))
    assert [verdict for verdict, _ in outcomes] == ["accepted"] * 2 + ["refused"] * 4
    assert all("there is no request" in reason for _, reason in outcomes[2:])


@pytest.mark.parametrize("taken_in", [False, True])
def test_second_telling_changes_nothing_and_says_so(driver: Driver, taken_in: bool) -> None:
    answers = [Label(8, 1), Failed(9, "dark", "infeasible"), Failed(10, "lost", "withdrawn")]
    assert {one for one, _ in verdicts(driver, *answers)} == {"accepted"}
    if taken_in:
        driver.run()
    folder = driver.log_dir / "inbox"
    before = sorted(folder.iterdir())
    assert {one for one, _ in verdicts(driver, *answers)} == {"repeated"}
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("taken_in", [False, True])
def test_label_is_corrected_by_its_source_alone_until_the_pool_has_it(driver: Driver, taken_in: bool) -> None:
    verdicts(driver, Label(8, 1, "ann"))
    if taken_in:
        driver.run()
    assert verdicts(driver, Label(8, 0, "bob"))[0][0] == "refused"
    assert verdicts(driver, Label(8, 0, "ann")) == [("corrected", "")]
    assert verdicts(driver, Label(8, 0, "ann"))[0][0] == "repeated"
    assert verdicts(driver, Failed(8, "dark"))[0][0] == "refused"
    verdicts(driver, Label(9, 1), Label(10, 0))
    driver.run()
    assert [request["value"] for request in Run(driver.log_dir).requests(0)] == ["0", "1", "0"]
    assert verdicts(driver, Label(8, 1, "ann")) == [
        ("refused", "it has another label, and the training pool has taken it")
    ]


def test_request_that_was_given_up_takes_no_label_before_it_is_opened_again(driver: Driver) -> None:
    verdicts(driver, Failed(8, "dark", "infeasible"))
    assert "a failure (infeasible) was told before" in verdicts(driver, Label(8, 1))[0][1]
    driver.run()
    ((verdict, reason),) = verdicts(driver, Label(8, 1))
    assert verdict == "refused"
    assert "it was given up (dark); alcore labels r --reopen" in reason


def test_request_that_failed_by_answers_that_are_no_labels_says_so(build: Build) -> None:
    class Broken(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            serialize_queue.put_many([Label(request, float("nan")) for request in queue_to_label.get_many(9)])

    driver = build(label_strategy=Broken(), run_id="r", max_active_learning_steps=1)
    driver.run()
    (found,) = verdicts(driver, Label(8, 1))
    assert found[0] == "refused"
    assert found[1].startswith("it was given up (its value is NaN or infinite); alcore labels r --reopen ")


def test_failure_of_the_next_attempt_is_told_apart_from_that_of_the_last(driver: Driver) -> None:
    (eight, *_) = driver.ask()
    failed = [Failed(eight, "crashed")]
    assert verdicts(driver, *failed)[0][0] == "accepted"
    driver.run()
    assert [request.request.attempt for request in driver.ask()] == [1, 0, 0], "one retry is allowed"
    assert verdicts(driver, *failed)[0][0] == "repeated"
    again = Request(eight.request.id, 0, 0, None, 1)
    assert verdicts(driver, Failed(again, "crashed"))[0][0] == "accepted"
    driver.run()
    assert Run(driver.log_dir).requests(0)[0]["state"] == "failed"


def test_answer_without_a_cost_has_the_expected_one(build: Build, toys: Any) -> None:
    driver = build(label_strategy=AskLabelStrategy(), train_datapool=toys.pool(costs=[2.5] * 40))
    driver.run()
    cost: Any = None
    driver.tell([Label(request, 1, cost=cost) for request in driver.ask()])
    driver.run()
    assert driver.spent().cost == 7.5


def test_answers_are_told_while_the_run_goes_on(build: Build, toys: Any) -> None:
    class Asking(toys.CountMetrology):  # type: ignore[misc]
        """Tells the run, in the step after, what it asked for."""

        def compute(self, *args: Any, **kwargs: Any) -> None:
            self.driver.tell([Label(request, 1) for request in self.driver.ask()])  # type: ignore[attr-defined]
            super().compute()

    driver = build(label_strategy=AskLabelStrategy(min_labels=0), metrology_strategies=[Asking()])
    driver.run()
    assert [len(driver.train_datapool), len(driver.ask())] == [8 + 2 * 3, 3]


@pytest.mark.parametrize("told_of", [1, 3])
@pytest.mark.parametrize("verdict", ["label", "infrastructure", "withdrawn"])
def test_what_is_told_while_the_label_strategy_works_is_taken_in(
    build: Build, monkeypatch: pytest.MonkeyPatch, told_of: int, verdict: str
) -> None:
    """The strategy hears which requests are its own no more; the others stay with it."""
    monkeypatch.setattr("alcore.driver.labeling._LOOK", 0.0)

    class Working(BaseLabel):
        idempotent = True
        seen: list[Any] = []  # noqa: RUF012

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            taken = queue_to_label.get_many(9)
            assert self.driver.take_told() == []
            some = self.driver.ask()[:told_of]  # type: ignore[attr-defined]
            answers = [
                Label(request, 1) if verdict == "label" else Failed(request, "too dark", verdict) for request in some
            ]
            self.driver.tell(answers)  # type: ignore[attr-defined]
            dropped = self.driver.take_told()
            again = queue_to_label.get_many(9)
            self.seen += [taken, dropped, again, self.driver.take_told()]
            serialize_queue.put_many([Label(request, 0) for request in [*taken[told_of:], *again]])

    driver = build(label_strategy=Working(), max_active_learning_steps=1, label_retries=1)
    driver.run()
    taken, dropped, again, nothing = Working.seen
    assert dropped == taken[:told_of]
    assert nothing == []
    tried_again = verdict == "infrastructure"
    assert [(request.item, request.attempt) for request in again] == [
        (request.item, 1) for request in dropped if tried_again
    ]
    values = [int(driver.train_datapool[place][1]) for place in range(8, len(driver.train_datapool))]
    first = {"label": [1] * told_of, "infrastructure": [0] * told_of, "withdrawn": []}[verdict]
    assert values == first + [0] * (3 - told_of)
    assert Run(driver.log_dir).refused() == [] or verdict != "label"


def test_telling_while_the_label_strategy_works_keeps_what_it_has_begun(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the budget no request is begun, and those that are under way are answered all the same."""
    monkeypatch.setattr("alcore.driver.labeling._LOOK", 0.0)

    class Costly(BaseLabel):
        idempotent = True

        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            taken = queue_to_label.get_many(9)
            serialize_queue.put(Label(taken[0], 0, cost=2.5))
            self.driver.tell([Label(taken[1], 1)])  # type: ignore[attr-defined]
            assert self.driver.take_told() == [taken[1]]
            assert queue_to_label.recalled() == [taken[2]]
            serialize_queue.put(Label(taken[2], 0))

    driver = build(label_strategy=Costly(), budget=3.0)
    driver.run()
    assert len(driver.train_datapool) == 8 + 3


def test_name_of_a_file_says_what_reads_it(driver: Driver) -> None:
    with pytest.raises(UsageError, match=r"not the file 'a\.csv'; alcore_labelers\.read_answers reads it"):
        driver.tell("a.csv")
