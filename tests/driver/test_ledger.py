"""The ledger of requests: its table, its indexes, and batches of answers."""

from __future__ import annotations

import math
import queue
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alcore.driver.budget import Budget, FailureRate
from alcore.driver.ledger import OPEN, TRANSITIONS, WITH_STRATEGY, AnswerBatch, Change, RequestLedger, RequestState
from alcore.protocols import Request
from alcore.store.rows import AcceptedLabel, LabelingState

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def ledger_of(budget: float | None = None, retries: int = 1) -> RequestLedger:
    return RequestLedger(queue.Queue(), Budget(budget), FailureRate(1.0), retries)


def request_of(ordinal: int, attempt: int = 0) -> Request:
    return Request(f"r{ordinal}", 0, ordinal, ordinal, attempt)


def attempts(requests: Iterable[Request]) -> list[tuple[str, int]]:
    return [(request.id, request.attempt) for request in requests]


def label_of(request: Request, cost: float = 1.0) -> AcceptedLabel:
    return AcceptedLabel(request, request.item, "id", "", None, cost)


def state_of(requests: list[Request], accepted: list[AcceptedLabel] = []) -> LabelingState:  # noqa: B006
    costs = {request.id: 1.0 for request in [*requests, *(label.request for label in accepted)]}
    return LabelingState(requests, accepted, set(), set(), {}, costs, True, False, False)


def load(ledger: RequestLedger, state: LabelingState) -> None:
    ledger.load(state, frozenset(), float(len(state.open)), [])


# -- the table ---------------------------------------------------------------------------------------------


def test_page_has_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| change | cause |") :].split("\n\n")[0].splitlines()
    states = [RequestState[name.upper().replace(" ", "_")] for name in _cells(table[0])[2:]]
    rows = {Change[_cells(row)[0].upper().replace(" ", "_")]: _cells(row)[2:] for row in table[2:]}
    assert states == list(RequestState)
    shown = {
        change: {
            before: RequestState[name.upper().replace(" ", "_")]
            for before, name in zip(states, names, strict=True)
            if name
        }
        for change, names in rows.items()
    }
    assert shown == TRANSITIONS


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"\|", row)[1:-1]]


def test_each_state_is_open_or_has_ended() -> None:
    assert set(RequestState) - OPEN == {RequestState.LABELED, RequestState.GIVEN_UP}
    assert WITH_STRATEGY < OPEN


@pytest.mark.parametrize("change", list(Change))
def test_what_has_ended_is_never_open_again(change: Change) -> None:
    ended = {RequestState.LABELED, RequestState.GIVEN_UP}
    assert {after for before, after in TRANSITIONS[change].items() if before in ended} <= ended


@pytest.mark.parametrize(
    "change", [change for change in Change if change not in (Change.GIVE_BACK, Change.LEAVE, Change.RETRY)]
)
def test_what_is_with_the_strategy_stays_there_until_it_ends_or_comes_back(change: Change) -> None:
    for before in WITH_STRATEGY & TRANSITIONS[change].keys():
        assert TRANSITIONS[change][before] not in (RequestState.WAITING, RequestState.READY, RequestState.WITHHELD)


# -- handing out -------------------------------------------------------------------------------------------


def test_request_that_was_taken_meanwhile_is_not_handed_out_twice() -> None:
    ledger, one = ledger_of(), request_of(0)
    load(ledger, state_of([one]))
    ledger.hand_out([one])
    assert ledger.take() == one
    ledger.hand_out([one])
    assert ledger.count_ready() == 0
    assert ledger.taken() == {"r0": one}


def test_retry_is_shown_in_the_form_in_which_it_was_handed_out() -> None:
    class Design:
        pass

    ledger, stored, design = ledger_of(), Request("r0", 0, 0, {"x": 1}), Design()
    load(ledger, state_of([stored]))
    ledger.hand_out_only([Request("r0", 0, 0, design)])
    ledger.take()
    batch = AnswerBatch(ledger)
    entry = batch.open("r0")
    assert entry is not None
    batch.retry(entry)
    ledger.send(ledger.apply(batch))
    again = ledger.take()
    assert (again.id, again.item, again.attempt) == ("r0", design, 1)


def test_batch_that_is_dropped_changes_nothing() -> None:
    ledger = ledger_of(budget=5.0)
    load(ledger, state_of([request_of(0), request_of(1)]))
    ledger.hand_out_only([request_of(0), request_of(1)])
    batch = AnswerBatch(ledger)
    for key in ("r0", "r1"):
        entry = batch.open(key)
        assert entry is not None
        batch.label(entry, label_of(entry.request, 3.0), reserved=1.0)
    assert batch.first_open() is None
    assert batch.budget.is_exceeded
    assert not ledger.budget.is_exceeded
    assert list(ledger.open) == ["r0", "r1"]
    assert ledger.count_ready() == 2


def test_answer_without_a_name_is_for_the_oldest_and_for_retries_last() -> None:
    ledger = ledger_of()
    load(ledger, state_of([request_of(number) for number in range(3)]))
    batch, order = AnswerBatch(ledger), []
    while (key := batch.first_open()) is not None:
        order.append(key)
        entry = batch.open(key)
        assert entry is not None
        if key == "r0" and entry.request.attempt == 0:
            batch.retry(entry)
        else:
            batch.give_up(entry)
    assert order == ["r0", "r1", "r2", "r0"]


# -- any order of changes ----------------------------------------------------------------------------------


def test_answers_to_a_sample_are_for_its_slots_in_turn_and_then_for_the_first() -> None:
    """A second opinion is a request of its own: with a state, a cost and an answer."""
    slots = [Request(f"r{slot}", 0, slot, 7, 0, slot) for slot in (1, 0, 2)]
    ledger = ledger_of(budget=3.0)
    load(ledger, state_of(slots))
    assert ledger.budget.committed == 3.0
    batch, answered = AnswerBatch(ledger), []
    for _ in range(3):
        key = batch.of_sample(7)
        assert key is not None
        answered.append(key)
        entry = batch.open(key)
        assert entry is not None
        batch.label(entry, label_of(entry.request, 2.0), reserved=entry.cost)
    assert answered == ["r0", "r1", "r2"]
    assert batch.of_sample(7) == "r0"  # a correction, or a repeat
    assert batch.of_sample(8) is None
    assert batch.budget.committed == 6.0
    ledger.apply(batch)
    assert not ledger.open
    assert AnswerBatch(ledger).of_sample(7) == "r0"


class Machine(RuleBasedStateMachine):
    """Whatever happens, the indexes agree with the states, and a request is handed out to one taker at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger_of(budget=6.0)
        self.open, self.asked = [request_of(number) for number in range(4)], 4
        self.labels: list[AcceptedLabel] = []
        self.held: dict[str, int] = {}
        load(self.ledger, state_of(self.open))
        self.ledger.hand_out_only(self.open)

    @rule(many=st.integers(1, 2))
    def ask(self, many: int) -> None:
        new = [request_of(self.asked + number) for number in range(many)]
        self.asked += many
        self.open += new
        self.ledger.hand_out(new)
        load(self.ledger, state_of(self.open, self.labels))

    @rule()
    def take(self) -> None:
        if self.ledger.count_ready():
            request = self.ledger.take()
            assert request.id not in self.held, "it is with somebody else"
            assert attempts([request])[0] in attempts(self.open), "it is not open, or it is another attempt"
            self.held[request.id] = request.attempt

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def give_back(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[key]
        self.ledger.give_back([key])

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def leave(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[key]
        self.ledger.leave([key])

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def withhold(self, data: Any) -> None:
        keys = [request.id for request in self.open]
        self.ledger.withhold(data.draw(st.lists(st.sampled_from(keys), unique=True)))

    @rule()
    def begin_phase(self) -> None:
        load(self.ledger, state_of(self.open, self.labels))
        self.ledger.hand_out_only(self.ledger.to_hand_out(state_of(self.open, self.labels)))
        free = [request for request in self.open if request.id not in self.held]
        assert self.ledger.count_ready() == len(free) or self.ledger.budget.is_exceeded

    @rule(data=st.data(), committed=st.booleans())
    @precondition(lambda self: self.open)
    def answer(self, data: Any, committed: bool) -> None:
        batch, open_, labels, held = AnswerBatch(self.ledger), list(self.open), list(self.labels), dict(self.held)
        for _ in range(data.draw(st.integers(1, 4))):
            if not open_:
                break
            request = data.draw(st.sampled_from(open_))
            entry = batch.open(request.id)
            assert entry is not None
            assert entry.request.attempt == request.attempt
            open_.remove(request)
            held.pop(request.id, None)
            how = data.draw(st.sampled_from(["label", "retry", "give up"]))
            if how == "label":
                labels.append(label_of(request))
                batch.label(entry, labels[-1], reserved=1.0)
            elif how == "retry":
                batch.retry(entry)
                open_.append(Request(request.id, 0, request.ordinal, request.item, request.attempt + 1))
            else:
                batch.give_up(entry)
            assert {asked.id for asked in batch.known()} == {
                asked.id for asked in [*open_, *(label.request for label in labels)]
            }
        if committed:
            self.open, self.labels, self.held = open_, labels, held
            self.ledger.send(self.ledger.apply(batch))

    @rule()
    def end_phase(self) -> None:
        closed = self.ledger.close()
        assert sorted(label.request.id for label in closed) == sorted(label.request.id for label in self.labels)
        self.labels = []
        self.ledger.begin_query(0)

    @invariant()
    def indexes_agree_with_the_states(self) -> None:
        ledger = self.ledger
        entries = list(ledger._entries.values())
        assert attempts(entry.request for entry in ledger.open.values()) == attempts(self.open)
        assert {key for key, entry in ledger.accepted.items() if entry.label} == {
            label.request.id for label in self.labels
        }
        assert ledger.taken().keys() == self.held.keys()
        ready = {id(entry) for entry in entries if entry.state is RequestState.READY}
        assert {id(entry) for entry in ledger._of_ticket.values()} == ready
        for entry in entries:
            assert (entry.ticket is not None) == (entry.state is RequestState.READY)
        counts = {state: sum(entry.state is state for entry in entries) for state in RequestState}
        assert {state: ledger._in_state[state] for state in RequestState} == counts
        assert {request.id for request in ledger.recalled()} == {
            entry.request.id for entry in entries if entry.state is RequestState.RECALLED
        }
        assert math.isfinite(ledger.budget.left)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
