"""Why a run ends, apart from stop criteria and errors."""

from __future__ import annotations

from typing import Any

import pytest

from alcore.driver.resume import why_finished
from alcore.driver.stopping import keeps_failing, nothing_to_label, step_limit
from alcore.store.outcomes import is_failure, is_waiting


@pytest.mark.parametrize(("limit", "done", "ends"), [(None, 99, False), (3, 2, False), (3, 3, True), (0, 0, True)])
def test_step_limit(limit: int | None, done: int, ends: bool) -> None:
    assert step_limit(limit, done) == (f"all {limit} steps are done" if ends else None)


class Pool:
    """Candidates, as far as they are asked here."""

    def __init__(self, known: bool, left: bool) -> None:
        self.known, self.left = known, left

    def any(self) -> bool:
        return self.left


def reason(**changes: Any) -> str | None:
    given: dict[str, Any] = {
        "requested": False, "dropped": {}, "candidates": Pool(True, True), "cold_start": False, "settled": False,
        "waiting": False,
        "has_query_strategies": True, "max_steps": None, "budget": None, **changes,
    }  # fmt: skip
    return nothing_to_label(**given)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"requested": True}, None),
        ({}, "the query strategies asked for nothing"),
        ({"max_steps": 5}, None),
        ({"max_steps": 5, "candidates": Pool(False, True)}, "the query strategies asked for nothing"),
        ({"has_query_strategies": False}, None),
        ({"candidates": Pool(True, False)}, "the pool has no unlabelled sample left"),
        ({"candidates": Pool(False, False)}, "the query strategies asked for nothing"),
        ({"dropped": {"over the budget": 2}, "budget": 4.0}, "the budget of 4 is spent"),
        ({"dropped": {"over the budget": 2}, "budget": 4.0, "requested": True}, None),
        ({"cold_start": True, "settled": True}, None),
        ({"cold_start": True}, "nothing is labelled yet, and the requests of the start were given up"),
        (
            {"cold_start": True, "waiting": True},
            "nothing is labelled yet, and the requests of the start are open",
        ),
    ],
)
def test_step_that_asked_for_nothing(changes: dict[str, Any], expected: str | None) -> None:
    assert reason(**changes) == expected


def test_only_labels_that_fail_are_a_failure_and_only_a_start_without_labels_waits() -> None:
    failing = keeps_failing("5 of the last 5 answers", 0.5)
    waiting, gone = (reason(cold_start=True, waiting=waiting) for waiting in (True, False))
    others = [None, step_limit(3, 3), "good enough", reason(), reason(candidates=Pool(True, False))]
    assert [is_failure(one) for one in (failing, gone, waiting, *others)] == [True, True] + [False] * 6
    assert [is_waiting(one) for one in (failing, gone, waiting, *others)] == [False, False, True] + [False] * 5


class Store:
    """A store, as far as it is asked here."""

    def __init__(self, *, spent: float = 0.0, waits: bool = False, **meta: Any) -> None:
        self._meta, self._spent, self._waits = meta, spent, waits

    def meta(self) -> dict[str, Any]:
        return self._meta

    def committed_cost(self) -> float:
        return self._spent

    def steps_committed(self) -> int:
        return 1

    def waits_before(self, step: int) -> bool:
        return self._waits


@pytest.mark.parametrize(
    ("store", "budget", "finished"),
    [
        (Store(status="running", reason=None), None, False),
        (Store(status="failed", reason=None), None, False),
        (Store(status="interrupted", reason="good enough"), None, False),
        (Store(status="done", reason="good enough"), None, True),
        (Store(status="done", reason="all 3 steps are done"), None, False),
        (Store(status="done", reason="all classes are found"), None, True),  # of a stop criterion
        (Store(status="done", reason="the budget of 4 is spent", spent=4.0), 4.0, True),
        (Store(status="done", reason="the budget of 4 is spent", spent=4.0), 5.0, False),
        (Store(status="done", reason="the budget of 4 is spent", spent=4.0), None, False),
        (Store(status="done", reason="nothing is labelled yet, and", waits=True), None, False),
        (Store(status="done", reason="nothing is labelled yet, and"), None, True),
    ],
)
def test_finished_run_goes_on_only_where_the_settings_allow_more(
    store: Any, budget: float | None, finished: bool
) -> None:
    assert (why_finished(store, store.meta(), budget) is not None) == finished
