"""The label queue: each answer finds its request, is committed when `put` returns, and is never paid for twice."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import queue
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alcore.codec import dumps, loads
from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import AnswerCheck
from alcore.driver.budget import Budget, FailureRate
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import PoolSet
from alcore.driver.request_queue import RequestQueue
from alcore.errors import EncodingError, StaleWriterError, UsageError
from alcore.pools import TensorPool
from alcore.pools.candidates import Candidates
from alcore.protocols import Failed, Label, Request
from alcore.store.database import Database
from alcore.store.files import StorageError
from alcore.store.reading import Run
from alcore.store.rows import request_id
from alcore.store.run import RunStore


class Desk:
    """A run at the start of a labeling phase, and what a second connection sees of it."""

    def __init__(
        self,
        folder: Path,
        items: list[Any],
        *,
        retries: int = 0,
        foreign: bool = False,
        cost: Callable[[Any], float | None] = lambda item: 1.0,
        budget: float | None = None,
        max_failure_rate: float = 1.0,
        state: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.pool = TensorPool(torch.zeros(30, 2), torch.zeros(30, dtype=torch.int64))
        self.store = RunStore.create(folder / "root", "r1", meta={}, experiment="", state={})
        self.ledger = RequestLedger(queue.Queue(), Budget(budget), FailureRate(max_failure_rate), retries)
        costs = ExpectedCosts(SimpleNamespace(cost=cost), None)
        self.requests = RequestQueue(
            self.ledger,
            Candidates(self.pool),
            "r1",
            PoolSet(None, None, None),
            costs,
        )
        check = AnswerCheck(PoolSet([] if foreign else self.pool, None, None))
        self.labels = AnswerQueue(self.store, self.ledger, check, strategy_state=state)
        self.ask(0, items)

    def ask(self, step: int, items: list[Any]) -> None:
        self.requests.begin(step, math.inf)
        self.requests.begin_strategy("uq", 1)
        self.requests.put_many(items)
        self.store.commit_query(step, self.requests.asked, [], "m")
        self.begin(step)

    def begin(self, step: int) -> None:
        """Open a labeling phase, and take in what the inbox holds."""
        self.step, state = step, self.store.labels.labeling(step)
        self.labels.open(step, state)
        if self.labels.take_inbox():
            state = self.store.labels.labeling(step)
            self.labels.open(step, state)
        self.ledger.hand_out_only(self.ledger.to_hand_out(state))

    def close(self) -> list[Any]:
        """End the labeling phase; return what was put."""
        return [label.item for label in self.labels.close()]

    @property
    def reader(self) -> Run:
        return Run(self.store.folder)

    @property
    def counts(self) -> dict[str, int]:
        return self.store.labels.counts(self.step)

    def states(self) -> list[str]:
        return [row["state"] for row in self.reader.requests()]

    def current(self) -> dict[int, Any]:
        """The current label of each request, by ordinal, as another process reads it."""
        return {
            row["ordinal"]: (row["kind"], None if row["value"] is None else loads(row["value"]))
            for row in self.reader.requests()
            if row["kind"] is not None
        }

    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.reader.refused()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(*items: Any, **options: Any) -> Desk:
        desks.append(Desk(tmp_path, list(items), **options))
        return desks[-1]

    yield make
    for open_desk in desks:
        open_desk.store.close()


Make = Callable[..., Desk]


# -- what an answer may be -------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [7, np.int64(7), np.array(7), torch.tensor(7)], ids=lambda one: type(one).__name__)
def test_a_bare_id_of_any_kind(desk: Make, item: Any) -> None:
    at = desk(3, 7)
    at.labels.put(item)
    assert at.current() == {1: ("id", None)}
    assert at.states() == ["open", "labeled"]
    (taken,) = at.close()
    assert taken == 7
    assert type(taken) is int


@pytest.mark.parametrize("item", [7, np.int64(7), torch.tensor(7)], ids=lambda one: type(one).__name__)
def test_a_label_is_taken_as_it_was_put(desk: Make, item: Any) -> None:
    at = desk(3, 7)
    label = Label(item, 1, source="ann", cost=2.5)
    at.labels.put(label)
    assert at.current() == {1: ("label", 1)}
    row = at.reader.requests()[1]
    assert (row["source"], row["cost"]) == ("ann", 2.5)
    assert at.close() == [label]


def test_a_label_may_name_its_request(desk: Make) -> None:
    at = desk(3, 7)
    request = at.requests.get_request()
    at.labels.put(Label(request, 1, source="ann"))
    assert at.current() == {0: ("label", 1)}
    (taken,) = at.close()
    assert (taken.item, taken.value, taken.source) == (3, 1, "ann")
    at.pool.append(taken)  # a pool knows nothing of requests
    assert at.pool.labeled_ids.tolist() == [3]


@pytest.mark.parametrize(
    "generated", [torch.arange(3.0), {"x": (1, 2)}, "text", True, [1, 2]], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("same_object", [True, False])
def test_a_generated_input_is_matched_by_object_or_content(desk: Make, generated: Any, same_object: bool) -> None:
    at = desk(3, generated, "other")
    item = next(request.item for request in at.store.labels.labeling(0).open if request.ordinal == 1)
    if same_object:
        item = [at.requests.get() for _ in range(2)][1]
    at.labels.put(Label(item, 1))
    assert at.current() == {1: ("label", 1)}


def test_equal_inputs_are_answered_oldest_first(desk: Make) -> None:
    at = desk("same", "same")
    at.labels.put(Label("sa" + "me", 1))
    at.labels.put(Label("sa" + "me", 0))
    assert at.current() == {0: ("label", 1), 1: ("label", 0)}


def test_equal_inputs_are_told_apart_by_their_objects(desk: Make) -> None:
    at = desk(torch.ones(2), torch.ones(2))
    first, second = at.requests.get(), at.requests.get()
    at.labels.put(Label(second, 1))
    at.labels.put(Label(first, 0))
    assert at.current() == {0: ("label", 0), 1: ("label", 1)}


def test_any_other_object_answers_the_oldest_open_request(desk: Make) -> None:
    at = desk(5, 3, 9)
    pairs = [(torch.ones(2), 1), (torch.zeros(2), 0)]
    at.labels.put(Label(5, 1))
    for pair in pairs:
        at.labels.put(pair)
    assert at.states() == ["labeled"] * 3
    taken = at.close()
    assert taken[1] is pairs[0]
    assert taken[2] is pairs[1]
    kind, value = at.current()[2]
    assert kind == "object"
    assert torch.equal(value[0], torch.zeros(2))


def test_answers_come_back_in_the_order_of_the_requests(desk: Make) -> None:
    at = desk(9, 1, 5, 3)
    for item in (3, Label(1, 1), 9, Label(5, 0)):
        at.labels.put(item)
    taken = [item.item if isinstance(item, Label) else item for item in at.close()]
    assert taken == [9, 1, 5, 3]
    assert at.close() == []


def test_requests_of_an_earlier_step_come_first(desk: Make) -> None:
    at = desk(9)
    at.ask(1, [4, 2])
    at.labels.put_many([2, 9, 4])
    assert at.close() == [9, 4, 2]


def test_a_later_phase_starts_anew(desk: Make) -> None:
    at = desk(9, 4)
    at.labels.put(9)
    assert (at.labels.qsize(), at.labels.empty()) == (1, False)
    at.close()
    at.begin(1)
    assert (at.labels.qsize(), at.labels.empty()) == (0, True)
    assert at.counts == {"labeled": 0, "failed": 0, "refused": 0, "repeated": 0}
    assert at.requests.get() == 4
    assert at.requests.empty()


@pytest.mark.parametrize("value", [1, torch.tensor(1), np.int64(1), np.array(1)], ids=lambda one: type(one).__name__)
def test_values_of_any_kind_come_back_as_they_were(desk: Make, value: Any) -> None:
    at = desk(3)
    at.labels.put(Label(3, value))
    (kind, stored_value) = at.current()[0]
    assert kind == "label"
    assert type(stored_value) is type(value)
    assert stored_value == value


# -- commitment ------------------------------------------------------------------------------------------


def test_each_put_is_committed_when_it_returns(desk: Make) -> None:
    at = desk(5, 3, 9)
    for count, item in enumerate([3, Label(9, 1), Label(5, 0)], 1):
        at.labels.put(item)
        assert len(at.current()) == count
        assert at.states().count("labeled") == count


def test_puts_from_many_threads_are_all_committed(desk: Make) -> None:
    at = desk(*range(24))
    seen: list[bool] = []

    def work(first: int) -> None:
        for sample in range(first, 24, 4):
            at.labels.put(Label(sample, sample % 2, source=f"t{first}"))
            seen.append(sample in at.current())

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [True] * 24
    assert at.current() == {sample: ("label", sample % 2) for sample in range(24)}
    assert [label.item for label in at.close()] == list(range(24))
    assert at.counts["labeled"] == 24


def test_put_many_is_one_transaction(desk: Make) -> None:
    at = desk(5, 3, 9)
    commits = []
    at.store._database._connection.set_trace_callback(lambda text: text == "COMMIT" and commits.append(text))
    seen = []

    def items() -> Iterator[Any]:
        for sample in (9, 3, 5):
            yield sample
            seen.append(len(at.current()))

    at.labels.put_many(items())
    assert seen == [0, 0, 0]
    assert commits == ["COMMIT"]
    assert at.states() == ["labeled"] * 3


def test_the_methods_of_queue_queue_are_there(desk: Make) -> None:
    at = desk(5, 3)
    at.labels.put(5, True, None)
    at.labels.put_nowait(3)
    assert at.close() == [5, 3]


def test_the_state_of_the_label_strategy_is_committed_with_each_answer(desk: Make) -> None:
    states = iter(["one", None, "three"])
    at = desk(5, 3, 9, state=lambda: next(states))
    stored_states = []
    for item in (5, 3, 9):
        at.labels.put(item)
        (row,) = at.reader.read("SELECT step, state FROM label_strategy")
        stored_states.append(row["state"])
    assert stored_states == ["one", "one", "three"]


def test_an_answer_is_not_committed_without_the_state_of_the_label_strategy(desk: Make) -> None:
    def state() -> str:
        raise ZeroDivisionError

    at = desk(5, state=state)
    with pytest.raises(ZeroDivisionError):
        at.labels.put(5)
    assert at.states() == ["open"]
    with pytest.raises(ZeroDivisionError):
        at.close()


# -- refusals --------------------------------------------------------------------------------------------

BAD = [
    (Label(3, float("nan")), "NaN or infinite"),
    (Label(3, torch.tensor(math.inf)), "NaN or infinite"),
    (Label(3, np.float32("nan")), "NaN or infinite"),
    (Label(3, torch.tensor(complex(math.nan, 1))), "NaN or infinite"),
    (Label(3, {"a": [1, (2, np.array([1.0, math.nan]))]}), "NaN or infinite"),
    (Label(3, [1, 0]), r"shape \(2,\) is not the targets' \(\)"),
    (Label(3, 0.5), "a fraction; the code of a class is a whole number"),
    (Label(3, 1 + 1j), "complex"),
    (Label(3, "cat"), "a str is not a label"),
    (Label(3, None), "None is not a label"),
    (Label(3, 7), "not one of the 2 classes 0 to 1"),
    (Label(3, -1), "not one of the 2 classes"),
    (Label(3, 2**70), "is too large"),
    (Label(3, object()), "a object is not a label"),
    (Label(3, 1, cost=math.nan), "cost is nan"),
    (Label(3, 1, cost=-1.0), "cost is -1.0"),
    (Label(3, 1, cost="dear"), "cost is 'dear'"),  # type: ignore[arg-type]
    (Label(3, 1, source=None), "source is None"),  # type: ignore[arg-type]
    (Label(3, 1, source=Path("a")), "source is .*'a'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_answer_is_kept_aside_and_takes_no_other_with_it(desk: Make, bad: Any, reason: str) -> None:
    at = desk(5, 3, 9)
    at.labels.put_many([9, bad, Label(5, 1)])
    assert at.states() == ["labeled", "failed", "labeled"]
    assert at.counts == {"labeled": 2, "failed": 1, "refused": 1, "repeated": 0}
    (row,) = at.reader.refused()
    assert (row["step"], row["request"]) == (0, request_id("r1", 0, 1))
    assert re.search(reason, row["reason"])
    assert len(at.close()) == 2


def test_what_was_refused_is_kept_exactly(desk: Make) -> None:
    at = desk(3)
    at.labels.put(Label(3, torch.tensor([0.5, math.nan]), source="ann"))
    kept = loads(at.reader.refused()[0]["item"])
    assert (kept["item"], kept["source"]) == (3, "ann")
    assert kept["value"][0] == 0.5
    assert math.isnan(kept["value"][1])


def test_what_cannot_be_stored_is_shown(desk: Make) -> None:
    at = desk(3, 4, foreign=True)
    at.labels.put(Label(3, range(3)))
    at.labels.put({"a": range(3)})
    assert "range(0, 3)" in at.reader.refused()[0]["item"]
    assert "{'a': range(0, 3)}" in at.reader.refused()[1]["item"]
    assert "builtins.range can't be stored" in at.reasons()[0]
    assert at.states() == ["failed", "failed"]


def test_nan_in_any_object_is_refused(desk: Make) -> None:
    at = desk(3)
    at.labels.put((torch.tensor([1.0, math.nan]), 1))
    assert at.states() == ["failed"]
    assert at.reasons() == ["its value is NaN or infinite"]


@pytest.mark.parametrize(
    "item",
    [4, Label(4, 1), Failed(4, "no"), -1, 2**70, Label("text", 1), Label(torch.ones(2), 1), Label(object(), 1),
     Label(Request("f" * 32, 0, 0, 3), 1)],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_an_answer_that_nobody_asked_for_is_kept_aside(desk: Make, item: Any) -> None:
    at = desk(3)
    at.labels.put(item)
    assert at.states() == ["open"]
    (reason,) = at.reasons()
    assert reason.startswith("nobody asked for it")
    assert at.reader.refused()[0]["request"] is None
    at.labels.put(3)
    assert at.close() == [3]


def test_an_object_without_an_open_request_is_kept_aside(desk: Make) -> None:
    at = desk(3)
    at.labels.put_many([3, (torch.ones(2), 1)])
    assert at.close() == [3]
    assert at.counts["refused"] == 1


def test_an_answer_from_before_this_phase_is_kept_aside(desk: Make) -> None:
    at = desk(3, 4)
    at.labels.put(Label(3, 1))
    at.close()
    at.begin(1)
    at.labels.put(Label(3, 0))
    assert at.current() == {0: ("label", 1)}
    assert at.close() == []


@pytest.mark.parametrize("late", [3, Label(3, 1), Failed(3, "again")], ids=lambda one: type(one).__name__)
def test_an_answer_after_the_request_was_given_up(desk: Make, late: Any) -> None:
    at = desk(3, 5)
    at.labels.put(Failed(3, "no"))
    at.labels.put_many([late, 5])
    assert at.states() == ["failed", "labeled"]
    assert at.counts == {"labeled": 1, "failed": 1, "refused": 1, "repeated": 0}
    assert at.close() == [5]


# -- jobs elsewhere --------------------------------------------------------------------------------------


def test_handle_of_a_job_is_shown_when_the_request_is_handed_out_again(desk: Make) -> None:
    at = desk(3, 5)
    first, second = at.requests.get_request(), at.requests.get_request()
    assert (first.handle, second.handle) == (None, None)
    at.labels.submitted(first, "job 17")
    at.labels.submitted(second, "job 18")
    at.labels.put(Label(second, 1))
    assert at.close() != []
    at.store.close()
    at.store = RunStore.open(at.store.folder.parent, "r1")
    assert [(request.item, request.handle) for request in at.store.labels.labeling(1).open] == [(3, "job 17")]


def test_next_attempt_is_another_job(desk: Make) -> None:
    at = desk(3, retries=1)
    request = at.requests.get_request()
    at.labels.submitted(request, "job 17")
    at.labels.put(Failed(request, "preempted", "timeout", 0.5))
    again = at.requests.get_request()
    assert (again.attempt, again.handle) == (1, None)
    assert [request.handle for request in at.store.labels.labeling(0).open] == [None]
    assert [(refusal["kind"], refusal["cost"]) for refusal in at.reader.refused()] == [("timeout", 0.5)]


@pytest.mark.parametrize("handle", [17, None, "", b"job", "half \ud800"], ids=repr)
def test_handle_that_is_no_text_is_refused(desk: Make, handle: Any) -> None:
    at = desk(3)
    with pytest.raises(UsageError, match="must be a text"):
        at.labels.submitted(at.requests.get_request(), handle)
    assert at.store.labels.labeling(0).open[0].handle is None


def test_handle_of_what_is_not_open_is_refused(desk: Make) -> None:
    at = desk(3, 5)
    request = at.requests.get_request()
    at.labels.put(Label(request, 1))
    for wrong in (request, 5, Request("0" * 32, 0, 0, 5)):
        with pytest.raises(UsageError, match="no open request"):
            at.labels.submitted(wrong, "job 17")


@pytest.mark.parametrize(
    ("failed", "stored"),
    [
        (Failed(3, "it broke"), ("infrastructure", 1.0)),
        (Failed(3, "too slow", "timeout", 2), ("timeout", 2.0)),
        (Failed(3, "no such thing", kind="infeasible", cost=0.0), ("infeasible", 0.0)),
        (Failed(3, "odd", kind="other", cost=math.nan), ("refused", 1.0)),  # type: ignore[arg-type]
        (Label(3, math.nan, cost=3.0), ("refused", 3.0)),
    ],
)
def test_failure_is_stored_with_its_kind_and_cost(desk: Make, failed: Any, stored: Any) -> None:
    at = desk(3)
    at.labels.put(failed)
    assert [(refusal["kind"], refusal["cost"]) for refusal in at.reader.refused()] == [stored]


def test_half_of_a_character_in_a_text_is_stored_as_an_escape(desk: Make) -> None:
    """Such as JSON may have, and names of files."""
    at = desk(3, 4, 5)
    at.labels.put(Failed(3, "no \udcff", "infeasible"))
    at.labels.put(Failed(4, "\ud800", "withdrawn"))
    at.labels.put(Label(5, 1, source="\ud800"))
    assert at.reasons() == ["no \\udcff", "withdrawn: \\ud800"]
    assert len(at.close()) == 1


def test_a_bare_integer_is_never_the_value_of_a_sample(desk: Make) -> None:
    at = desk(3, "generated")
    at.labels.put(1)  # the class, where the id or a Label was meant
    assert at.states() == ["open", "open"]
    assert at.reasons()[0].startswith("nobody asked for it")


@pytest.mark.parametrize("resumed", [False, True])
def test_a_bare_integer_stays_an_id_where_all_samples_were_given_up(desk: Make, resumed: bool) -> None:
    at = desk(3, "generated")
    at.labels.put(Failed(3, "no"))
    if resumed:
        at.begin(0)
    at.labels.put(1)
    assert at.states() == ["failed", "open"]
    assert at.reasons()[1].startswith("nobody asked for it")


def test_a_bare_integer_answers_a_generated_input_where_there_are_only_these(desk: Make) -> None:
    at = desk("a", "b", foreign=True)
    at.labels.put(1)
    assert at.current() == {0: ("object", 1)}


def test_a_late_repeat_is_never_the_value_of_a_generated_input(desk: Make) -> None:
    at = desk(3)
    at.labels.put(3)
    at.close()
    at.ask(1, ["generated"])
    at.labels.put(3)
    assert at.states() == ["labeled", "open"]
    assert at.reasons()[0].startswith("nobody asked for it")


# -- refused answers and their requests ---------------------------------------------------------------------


def test_request_takes_a_good_answer_after_a_bad_one_while_attempts_are_left(desk: Make) -> None:
    at = desk(3, retries=2)
    at.labels.put_many([Label(3, 7), Label(3, "x"), Label(3, 1)])
    assert at.states() == ["labeled"]
    assert at.reader.requests()[0]["attempt"] == 2


@pytest.mark.parametrize("retries", [0, 2])
def test_bad_answer_is_an_attempt_and_the_last_one_fails_the_request_for_good(desk: Make, retries: int) -> None:
    at = desk(3, retries=retries, budget=10.0)

    def handed_out() -> list[int]:
        attempts = []
        while not at.requests.empty():
            request = at.requests.get_request()
            attempts.append(request.attempt)
            at.labels.put(Label(request, 7, cost=2.0))
        return attempts

    assert handed_out() == list(range(retries + 1))
    assert at.states() == ["failed"]
    assert at.store.costs.committed() == 2.0 * (retries + 1)
    at.begin(0)  # the phase was cut off and goes on
    assert handed_out() == []
    at.begin(1)
    assert handed_out() == []
    assert [row["cost"] for row in at.reader.refused()] == [2.0] * (retries + 1)
    at.labels.put(Label(3, 1))
    assert at.states() == ["failed"]
    assert at.reasons()[-1].startswith("nobody asked for it")


def test_bad_answer_of_a_cut_off_phase_leaves_the_attempts_that_are_left(desk: Make) -> None:
    at = desk(3, retries=1)
    at.labels.put(Label(at.requests.get_request(), 7))
    at.begin(0)
    again = at.requests.get_request()
    assert again.attempt == 1
    at.labels.put(Label(again, 7))
    assert at.states() == ["failed"]


@pytest.mark.parametrize("bad", [Failed(3, "no", "soon"), Failed(3, "no", "withdrawn", math.nan)], ids=["kind", "cost"])  # type: ignore[arg-type]
def test_failure_that_says_nothing_sensible_is_an_attempt(desk: Make, bad: Any) -> None:
    at = desk(3, budget=10.0)
    at.labels.put(bad)
    assert at.states() == ["failed"]
    assert at.counts == {"labeled": 0, "failed": 1, "refused": 1, "repeated": 0}
    assert at.store.costs.committed() == 1.0


# -- what a person has told, unchecked ------------------------------------------------------------------------


def _is_storable(bad: Any) -> bool:
    with contextlib.suppress(EncodingError):
        return bool(dumps([getattr(bad, name, None) for name in ("value", "source")]))
    return False


BAD_WORDS = [bad for bad, _ in BAD if _is_storable(bad)]
BAD_WORDS += [Failed(3, "no", "soon"), Failed(3, "no", "withdrawn", -1.0)]  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", BAD_WORDS)
@pytest.mark.parametrize("taken", [True, False])
def test_bad_answer_that_a_person_told_is_refused_and_can_be_corrected(desk: Make, bad: Any, taken: bool) -> None:
    at = desk(3, 5, budget=10.0, max_failure_rate=0.0)
    if taken:
        at.requests.get_many(2)
    at.store.inbox.publish([bad, Label(5, 1)], told=True)
    at.labels.take_inbox()
    assert at.states() == ["open", "labeled"]
    assert at.reader.requests()[0]["attempt"] == 0
    assert [(row["kind"], row["cost"]) for row in at.reader.refused()] == [("refused", None)]
    assert at.store.costs.committed() == 2.0
    assert at.ledger.is_taken(request_id("r1", 0, 0)) == taken
    at.begin(0)
    assert [request.attempt for request in at.ledger.to_hand_out(at.store.labels.labeling(0))] == ([] if taken else [0])
    at.store.inbox.publish([Label(3, 1)], told=True)
    at.labels.take_inbox()
    assert at.states() == ["labeled", "labeled"]


def test_bad_answer_from_outside_that_nobody_told_is_an_attempt(desk: Make) -> None:
    at = desk(3)
    at.store.inbox.publish([Label(3, 7)])
    at.labels.take_inbox()
    assert at.states() == ["failed"]


@pytest.mark.parametrize("named", [True, False])
def test_class_may_be_named_where_the_data_names_its_classes(desk: Make, named: bool) -> None:
    at = desk(3, 5, 7)
    at.pool.info = dataclasses.replace(at.pool.info, names=("ham", "spam") if named else ())
    check = AnswerCheck(PoolSet(at.pool, None, None))
    at.labels = AnswerQueue(at.store, at.ledger, check)
    at.begin(0)
    at.labels.put_many([Label(5, "spa"), Label(3, "spam"), "ham"])
    if named:
        assert at.current() == {0: ("label", 1), 2: ("label", 0)}
        assert re.search("'spa' is not one of the classes; did you mean 'spam'", at.reasons()[0])
        assert [(label.item, label.value) for label in at.close()] == [(3, 1), (7, 0)]
    else:
        assert at.states() == ["failed", "failed", "failed"]


def test_id_alone_is_refused_where_the_pool_does_not_know_the_label(desk: Make) -> None:
    at = desk(3)
    pool = TensorPool(torch.zeros(30, 2), info=at.pool.info)
    at.labels = AnswerQueue(at.store, at.ledger, AnswerCheck(PoolSet(pool, None, None)))
    at.begin(0)
    at.labels.put(3)
    assert "the pool doesn't know its label" in at.reasons()[0]
    assert at.states() == ["failed"]


@pytest.mark.parametrize("bad", ["cat", None, 1.5, {"a": 1}, (torch.zeros(3), 1), (torch.zeros(2), 7), 1])
def test_object_that_the_pool_cannot_append_is_refused(desk: Make, bad: Any) -> None:
    at = desk("generated", foreign=False)
    at.labels.put(bad)
    assert at.states() == ["failed"]
    assert len(at.reasons()) == 1


# -- what is handed out ------------------------------------------------------------------------------------


def test_what_was_answered_or_given_up_is_not_handed_out(desk: Make) -> None:
    at = desk(3, 5, 7, 9)
    at.labels.put_many([Label(3, 1), Failed(7, "no")])
    assert at.requests.qsize() == 2
    assert [at.requests.get(), at.requests.get()] == [5, 9]
    assert at.requests.empty()
    with pytest.raises(queue.Empty):
        at.requests.get()


def test_what_was_answered_since_the_phase_began_is_not_handed_out(desk: Make) -> None:
    at = desk(3, 5)
    state = at.store.labels.labeling(0).open
    at.labels.put(Label(3, 1))
    at.ledger.hand_out_only(state)
    assert at.requests.get() == 5
    assert at.requests.empty()


def test_a_thread_that_waits_for_what_is_answered_meanwhile_gets_nothing(desk: Make) -> None:
    at = desk(3)
    transport = at.ledger._transport
    get = transport.get

    def slow_get() -> Any:
        ticket = get()
        at.labels.put(Label(3, 1))
        return ticket

    transport.get = slow_get
    with pytest.raises(queue.Empty):
        at.requests.get()
    transport.get = get
    at.ask(1, [5])
    assert at.requests.get() == 5


# -- retries ---------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_as_often_as_was_said(desk: Make) -> None:
    at = desk(3, retries=2)
    attempts = []
    while not at.requests.empty():
        request = at.requests.get_request()
        attempts.append(request.attempt)
        at.labels.put(Failed(request, "busy"))
    assert attempts == [0, 1, 2]
    assert at.states() == ["failed"]
    assert at.reasons() == ["busy"] * 3
    assert at.counts == {"labeled": 0, "failed": 1, "refused": 0, "repeated": 0}
    assert at.close() == []


def test_a_label_after_a_failure_is_kept_with_its_attempt(desk: Make) -> None:
    at = desk(3, 5, retries=1)
    at.labels.put(Failed(3, "busy"))
    assert at.states() == ["open", "open"]
    again, _ = at.requests.get_many(9)  # it was not taken out before, and is handed out once
    assert (again.item, again.attempt, again.id) == (3, 1, request_id("r1", 0, 0))
    at.labels.put(Label(again, 1))
    assert at.states() == ["labeled", "open"]
    assert [row["attempt"] for row in at.reader.read("SELECT attempt FROM labels")] == [1]
    assert at.counts["failed"] == 0


def test_attempts_are_counted_across_phases(desk: Make) -> None:
    at = desk(3, retries=1)
    at.labels.put(Failed(3, "busy"))
    at.begin(1)
    assert at.requests.get_request().attempt == 1
    at.labels.put(Failed(3, "busy"))
    assert at.states() == ["failed"]


@pytest.mark.parametrize("bad", [Failed(3, "busy"), Label(3, math.nan)], ids=["failed", "refused"])
@pytest.mark.parametrize("cut", [True, False])
def test_unnamed_answer_goes_to_the_request_that_was_handed_out_next(desk: Make, bad: Any, cut: bool) -> None:
    at = desk(3, 5, 7, retries=1, foreign=True)
    at.requests.get_request()
    at.labels.put(bad)
    if cut:
        at.begin(0)
    handed_out = []
    while not at.requests.empty():
        handed_out.append(at.requests.get_request())
        at.labels.put({"answers": handed_out[-1].item})
    assert [request.item for request in handed_out] == [5, 7, 3]
    assert [(label.request.item, label.item) for label in at.labels.close()] == [
        (sample, {"answers": sample}) for sample in (3, 5, 7)
    ]


# -- repeats, corrections, conflicts, cost ---------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [3, Label(3, 1), Label(3, torch.tensor(1), source="ann", cost=1.0)], ids=["id", "label", "tensor"]
)
def test_a_repeat_is_noted_and_paid_once(desk: Make, answer: Any) -> None:
    at = desk(3)
    for _ in range(3):
        at.labels.put(answer)
    assert at.counts == {"labeled": 1, "failed": 0, "refused": 0, "repeated": 2}
    assert at.reasons() == ["a repeat of the answer that is there"] * 2
    assert len(at.reader.read("SELECT * FROM labels")) == 1
    assert at.store.costs.committed() == 1.0
    paid = answer if answer == 3 else dataclasses.replace(answer, cost=1.0)
    assert [repr(label) for label in at.close()] == [repr(paid)]  # labels are equal by identity alone


def test_a_correction_takes_the_place_of_the_answer_and_is_kept_beside_it(desk: Make) -> None:
    at = desk(3, 5)
    at.labels.put(Label(3, 0, source="ann", cost=2.0))
    at.labels.put(Label(3, 1, source="ann", cost=3.0))
    assert at.current() == {0: ("label", 1)}
    rows = at.reader.read("SELECT value, superseded, cost FROM labels ORDER BY rowid")
    assert [tuple(row) for row in rows] == [("0", 1, 2.0), ("1", 0, 3.0)]
    assert at.counts == {"labeled": 1, "failed": 0, "refused": 0, "repeated": 0}
    assert [label.value for label in at.close()] == [1]


def test_corrections_of_corrections(desk: Make) -> None:
    at = desk(3)
    for value in (0, 1, 0, 1):
        at.labels.put(Label(3, value))
    rows = at.reader.read("SELECT value, superseded FROM labels ORDER BY rowid")
    assert [tuple(row) for row in rows] == [("0", 1), ("1", 1), ("0", 1), ("1", 0)]


def test_of_two_sources_the_first_counts(desk: Make) -> None:
    at = desk(3)
    at.labels.put(Label(3, 0, source="ann"))
    at.labels.put(Label(3, 1, source="bob"))
    assert at.current() == {0: ("label", 0)}
    assert at.reasons() == ["'ann' was first"]
    assert loads(at.reader.refused()[0]["item"]) == {"item": 3, "value": 1, "source": "bob"}
    assert at.counts["refused"] == 1


def test_a_bad_correction_leaves_the_answer_that_is_there(desk: Make) -> None:
    at = desk(3)
    at.labels.put(Label(3, 0))
    at.labels.put(Label(3, math.nan))
    at.labels.put(Failed(3, "after all"))
    assert at.current() == {0: ("label", 0)}
    assert at.states() == ["labeled"]
    assert all(reason.endswith("the answer that is there stays") for reason in at.reasons())
    assert at.counts == {"labeled": 1, "failed": 0, "refused": 2, "repeated": 0}


def test_what_was_spent_is_current_labels_and_open_requests(desk: Make) -> None:
    at = desk(1, 2, 4, 8, cost=lambda item: float(item), foreign=True)
    assert at.store.costs.committed() == 15.0
    at.labels.put(1)
    assert at.store.costs.committed() == 15.0
    at.labels.put(Label(2, 1, cost=20.0))  # dearer than expected
    assert at.store.costs.committed() == 33.0
    at.labels.put(Label(2, 0, cost=20.5))
    assert at.store.costs.committed() == 33.5
    at.labels.put(Failed(4, "no"))  # the attempt cost what was expected
    assert at.store.costs.committed() == 33.5
    at.labels.put({"object": 1})
    assert at.store.costs.committed() == 33.5
    assert [row["cost"] for row in at.reader.requests()] == [1.0, 20.5, None, 8.0]


@pytest.mark.parametrize("cost", [np.float32(2.0), np.int64(2), 2, True])
def test_a_cost_of_any_number_type(desk: Make, cost: Any) -> None:
    at = desk(3)
    at.labels.put(Label(3, 1, cost=cost))
    assert at.store.costs.committed() == float(cost)
    assert at.states() == ["labeled"]


# -- faults ----------------------------------------------------------------------------------------------


class FullDisk:
    """A connection whose commits fail, after a pause if one is wanted."""

    def __init__(self, connection: sqlite3.Connection, pause: Callable[[], object] = lambda: None) -> None:
        self.connection, self.pause = connection, pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == "COMMIT":
            self.pause()
            raise sqlite3.OperationalError("database or disk is full")
        return self.connection.execute(statement, *parameters)


def test_what_a_full_disk_refused_can_be_put_again(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(3, 5)
    at.labels.put(Label(3, 0, source="ann"))
    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "_connection", FullDisk(at.store._database._connection))
        with pytest.raises(StorageError):
            at.labels.put_many([Label(5, 1), Label(3, 1, source="ann")])
    assert at.states() == ["labeled", "open"]
    at.labels.put(Label(5, 1))
    assert at.current() == {0: ("label", 0), 1: ("label", 1)}
    assert at.reasons() == []
    assert [label.item for label in at.close()] == [3, 5]


def test_what_was_stored_when_a_put_was_interrupted_is_a_repeat(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(3, 5)
    transaction = at.store._database.transaction

    @contextlib.contextmanager
    def interrupted() -> Iterator[sqlite3.Connection]:
        with transaction() as connection:
            yield connection
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "transaction", interrupted)
        with pytest.raises(KeyboardInterrupt):
            at.labels.put(Label(3, 1))
    at.labels.put_many([Label(3, 1), Label(5, 1)])
    assert at.reasons() == ["a repeat of the answer that is there"]
    assert [label.item for label in at.close()] == [3, 5]


def test_the_end_of_a_phase_waits_for_a_put_that_fails(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the pool would get an answer that is on no disk."""
    at = desk(3, 5)
    inside, go = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def pause() -> None:
        inside.set()
        go.wait(10)

    def put() -> None:
        try:
            at.labels.put(Label(3, 1))
        except StorageError as error:
            raised.append(error)

    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "_connection", FullDisk(at.store._database._connection, pause))
        worker = threading.Thread(target=put)
        worker.start()
        assert inside.wait(10)
        threading.Timer(0.2, go.set).start()
        with pytest.raises(StorageError):  # that of a thread which has not put it again
            at.close()
        worker.join()
    assert len(raised) == 1
    assert at.states() == ["open", "open"]


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), KeyboardInterrupt()])
def test_nothing_is_made_of_answers_whose_commit_failed(
    desk: Make, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    at = desk(3, 5)
    at.labels.put(3)
    transaction = at.store._database.transaction

    @contextlib.contextmanager
    def broken() -> Iterator[sqlite3.Connection]:
        with transaction() as connection:
            yield connection
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "transaction", broken)
        with pytest.raises((type(error), OSError)):
            at.labels.put(5)
    assert at.states() == ["labeled", "open"]
    for _ in range(2):
        with pytest.raises((type(error), OSError)):
            at.close()


def test_a_run_that_was_taken_over_takes_no_more_labels(desk: Make) -> None:
    at = desk(3)
    Database(at.store.folder / "run.db").close()
    with pytest.raises(StaleWriterError):
        at.labels.put(3)
    with pytest.raises(StaleWriterError):
        at.close()
    assert at.states() == ["open"]


def test_what_a_generator_gave_before_it_raised_is_committed(desk: Make) -> None:
    at = desk(3, 5)

    def items() -> Iterator[Any]:
        yield Label(3, 1)
        raise RuntimeError("the file of answers is damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        at.labels.put_many(items())
    assert at.states() == ["labeled", "open"]
    assert [label.item for label in at.close()] == [3]


def test_put_many_may_be_given_a_generator_that_takes_requests(desk: Make) -> None:
    at = desk(3, 5)
    at.requests.on_take = at.store.requests.mark_taken

    def items() -> Iterator[Any]:
        while not at.requests.empty():
            yield Label(at.requests.get_request(), 1)

    at.labels.put_many(items())
    assert at.states() == ["labeled", "labeled"]


# -- outside a labeling phase ----------------------------------------------------------------------------


def inbox_of(at: Desk) -> list[str]:
    return [path.name for path in (at.store.folder / "inbox").glob("*.json")]


def test_answers_after_the_end_of_a_phase_wait_for_the_next(desk: Make) -> None:
    at = desk(3, 4, 5, 6)
    at.labels.put(Label(3, 1))
    assert [label.item for label in at.close()] == [3]
    at.labels.put_many([Label(6, 1, source="ann"), Label(4, 0), Failed(5, "no"), Label(6, 0, source="ann")])
    assert at.states() == ["labeled", "open", "open", "open"]
    assert len(inbox_of(at)) == 1
    at.ask(1, [7])
    assert at.states() == ["labeled", "labeled", "failed", "labeled", "open"]
    at.labels.put(Label(7, 1))
    assert [(label.item, label.value) for label in at.close()] == [(4, 0), (6, 0), (7, 1)]
    assert at.counts == {"labeled": 3, "failed": 1, "refused": 0, "repeated": 0}
    assert inbox_of(at) == []


def test_put_after_the_run_ended_goes_to_the_inbox(desk: Make) -> None:
    at = desk(3)
    at.close()
    at.store.close()
    at.labels.put(Label(3, 1))
    assert len(inbox_of(at)) == 1


def test_put_after_a_phase_that_failed_goes_to_the_inbox_and_makes_the_fault_good(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(3, 5)
    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "_connection", FullDisk(at.store._database._connection))
        with pytest.raises(StorageError):
            at.labels.put(Label(3, 1))
        with pytest.raises(StorageError):
            at.close()
    at.labels.put(Label(3, 1))
    assert at.states() == ["open", "open"]
    assert len(inbox_of(at)) == 1
    at.begin(0)
    assert [label.item for label in at.close()] == [3]


def test_inbox_file_whose_commit_failed_counts_when_it_is_taken_again(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(3, 5)
    at.close()
    at.labels.put(Label(3, 1))
    at.labels.open(0, at.store.labels.labeling(0))
    with monkeypatch.context() as patched:
        patched.setattr(at.store._database, "_connection", FullDisk(at.store._database._connection))
        with pytest.raises(StorageError):
            at.labels.take_inbox()
    assert at.close() == []
    assert at.states() == ["open", "open"]
    at.begin(0)
    assert [label.item for label in at.close()] == [3]


@pytest.mark.parametrize("held", [False, True], ids=["", "while a thread of the parent puts"])
def test_put_of_a_forked_child_goes_to_the_inbox(desk: Make, held: bool) -> None:
    at = desk(3)
    with contextlib.ExitStack() as locks:
        if held:
            locks.enter_context(at.store.inbox._lock)
            other = threading.Thread(target=lambda: (at.labels._lock.acquire(), locked.set(), go.wait(10)))
            locked, go = threading.Event(), threading.Event()
            locks.callback(go.set)
            other.start()
            assert locked.wait(10)
        child = os.fork()
        if not child:
            signal.alarm(10)
            failed = True
            try:
                at.labels.put(Label(3, 1))
                failed = False
            finally:
                os._exit(failed)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert at.states() == ["open"]
    assert len(inbox_of(at)) == 1


# -- the budget, and labels that keep failing --------------------------------------------------------------------


def test_attempts_that_failed_are_paid(desk: Make) -> None:
    at = desk(1, 2, 3, budget=10.0, retries=1)
    at.labels.put(Failed(1, "busy"))  # what was expected, 1
    assert at.store.costs.committed() == 4.0
    at.labels.put(Failed(1, "busy", cost=3.0))
    assert at.store.costs.committed() == 6.0  # 1 + 3 paid, 2 reserved
    at.labels.put(Label(2, 7, cost=2.0))  # refused, and paid as it says; another attempt is reserved
    assert at.store.costs.committed() == 8.0
    assert at.store.costs.bought(1) == (0, 6.0)


@pytest.mark.parametrize(("cost", "paid"), [(None, 0.0), (0.0, 0.0), (3.0, 3.0)])
@pytest.mark.parametrize("told", [True, False])
def test_withdrawn_request_costs_what_its_answer_says_and_else_nothing(
    desk: Make, cost: float | None, paid: float, *, told: bool
) -> None:
    at = desk(1, 2, budget=10.0, max_failure_rate=0.0)
    at.store.inbox.publish([Failed(1, "taken back", "withdrawn", cost)], told=told)
    at.labels.take_inbox()
    assert at.states() == ["failed", "open"]
    assert [(row["kind"], row["cost"]) for row in at.reader.refused()] == [("dropped", cost)]
    assert at.store.costs.committed() == paid + 1.0
    assert at.store.costs.bought(1) == (0, paid)
    at.begin(0)
    assert at.store.costs.committed() == paid + 1.0
    assert at.requests.qsize() == 1


@pytest.mark.parametrize("kind", ["infrastructure", "timeout", "infeasible"])
def test_what_is_infeasible_is_never_asked_again(desk: Make, kind: Any) -> None:
    at = desk(3, retries=5)
    at.labels.put(Failed(at.requests.get_request(), "no", kind))
    assert at.states() == ["failed" if kind == "infeasible" else "open"]
    assert at.requests.qsize() == (kind != "infeasible")


def test_request_is_not_tried_again_where_the_budget_is_spent(desk: Make) -> None:
    at = desk(3, retries=5, budget=2.0)
    for _ in range(3):
        if not at.requests.empty():
            at.labels.put(Failed(at.requests.get_request(), "busy"))
    assert at.states() == ["failed"]
    assert at.store.costs.committed() == 2.0


def test_requests_that_dearer_labels_leave_no_money_for_are_not_handed_out(desk: Make) -> None:
    at = desk(1, 2, 3, 4, budget=4.0)
    at.labels.put(Label(at.requests.get_request(), 1, cost=2.5))
    assert at.requests.qsize() == 1  # 2.5 are paid, and 1 is reserved
    at.begin(0)
    assert at.requests.qsize() == 1
    at.labels.put(Label(at.requests.get_request(), 1, cost=0.5))
    assert at.states() == ["labeled", "labeled", "open", "open"]
    at.begin(1)
    assert [request.item for request in at.requests.get_many(9)] == [3]


def test_no_request_is_handed_out_while_labels_keep_failing(desk: Make) -> None:
    at = desk(*range(20), max_failure_rate=0.5)
    for place in range(8):
        if at.requests.empty():
            break
        request = at.requests.get_request()
        at.labels.put(Label(request, 1) if place < 2 else Failed(request, "no answer"))
    assert place == 5  # 3 of 5 answers
    assert at.labels.keeps_failing == "3 of the last 5 answers"
    at.begin(0)
    assert at.requests.empty()
    at.store.labels.forget_failures()
    at.begin(0)
    assert at.requests.qsize() == 15
    assert at.labels.keeps_failing is None


def test_what_is_infeasible_is_no_failure(desk: Make) -> None:
    at = desk(*range(20), max_failure_rate=0.5)
    for sample in range(10):
        at.labels.put(Failed(sample, "no such thing", "infeasible"))
    assert at.labels.keeps_failing is None
