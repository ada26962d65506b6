"""`Costs`: sums that are kept from step to step are those of the tables, whatever is changed, and in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from alcore import Label, Request
from alcore.protocols import Spent
from alcore.store.rows import AcceptedLabel, AskedRequest, request_id
from alcore.store.run import RunStore

COSTS = [0.1, 0.2, 0.3, 1e-9, 1e9, 0.7, 1 / 3]
STEPS = 6


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    made = RunStore.create(tmp_path, "r", meta={"run_id": "r"}, experiment="", state={"model": {}})
    yield made
    made.close()


def label(request: Request, cost: float) -> AcceptedLabel:
    return AcceptedLabel(request, Label(request.item, 1), "label", "", "1", cost)


def ask(store: RunStore, step: int, count: int, cost: float) -> list[Request]:
    requests = [Request(request_id("r", step, place), step, place, 100 * step + place) for place in range(count)]
    asked = [AskedRequest(request, request.item, "q", None, request.ordinal, cost) for request in requests]
    store.commit_query(step, asked, [], "")
    return requests


def fresh(store: RunStore, step: int) -> list[object]:
    """Return the sums as one who has read nothing before gives them."""
    store.costs.forget()
    return sums(store, step)


def sums(store: RunStore, step: int) -> list[object]:
    return [store.costs.bought(step), store.costs.mean(step), store.costs.committed(step), store.costs.committed()]


def test_sums_are_exact_and_the_same_when_the_run_was_resumed(store: RunStore) -> None:
    generator, paid, labels, answers = random.Random(0), Fraction(0), 0, 0
    for step in range(STEPS):
        assert store.costs.bought(step) == Spent(labels, float(paid))
        assert store.costs.mean(step) == (float(paid / answers) if answers else None)
        requests = ask(store, step, 5, cost=0.1)
        generator.shuffle(requests)
        with store.answering(step) as writer:
            for request in requests[:4]:
                cost = generator.choice(COSTS)
                if request is requests[0]:
                    writer.refuse(request.id, "", "is down", kind="timeout", cost=cost)
                    writer.give_up(request.id)
                else:
                    writer.accept(request, label(request, cost))
                    labels += 1
                paid, answers = paid + Fraction(cost), answers + 1
        expected = float(paid + (step + 1) * Fraction(0.1))  # one of each step is open
        assert store.costs.committed() == expected
        assert store.costs.committed(step + 1) == expected
    kept = [sums(store, step) for step in range(STEPS + 1)]
    assert [fresh(store, step) for step in range(STEPS + 1)] == kept


def test_sums_that_are_kept_follow_a_change_of_an_earlier_step(store: RunStore) -> None:
    first, second = ask(store, 0, 2, cost=1.0)
    with store.answering(0) as writer:
        writer.accept(first, label(first, 2.0))
    assert store.costs.bought(3) == Spent(1, 2.0)
    with store.answering(0) as writer:
        writer.refuse(second.id, "", "is down", kind="timeout", cost=4.0)
    assert store.costs.bought(3) == Spent(1, 6.0)
    with store.answering(3) as writer:  # the label of step 0 is no longer the current one
        writer.accept(first, label(first, 8.0), corrects=True)
    assert store.costs.bought(3) == Spent(0, 4.0)
    assert store.costs.bought(4) == Spent(1, 12.0)
    store.reopen_requests([first.id])
    assert store.costs.bought(4) == Spent(0, 4.0)
    assert store.costs.committed() == 4.0 + 2.0


def test_sums_that_were_read_in_a_transaction_that_failed_are_read_again(store: RunStore) -> None:
    (request,) = ask(store, 0, 1, cost=1.0)

    def fail() -> None:
        with store.answering(0) as writer:
            writer.refuse(request.id, "", "is down", kind="timeout", cost=2.0)
            assert store.costs.bought(1) == Spent(0, 2.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.costs.bought(1) == Spent(0, 0.0)
