"""Why a run ends, apart from stop criteria and errors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alcore.driver.resume import why_finished
from alcore.driver.stopping import all_refused, keeps_failing, nothing_to_label, step_limit
from alcore.protocols import EndKind, EndReason


@pytest.mark.parametrize(("limit", "done", "ends"), [(None, 99, False), (3, 2, False), (3, 3, True), (0, 0, True)])
def test_step_limit(limit: int | None, done: int, ends: bool) -> None:
    expected = EndReason(EndKind.STEPS, f"all {limit} steps are done")
    assert step_limit(limit, done) == (expected if ends else None)


class Pool:
    """Candidates, as far as they are asked here."""

    def __init__(self, known: bool, left: bool) -> None:
        self.known, self.left = known, left

    def any(self) -> bool:
        return self.left


def reason(**changes: Any) -> EndReason | None:
    given: dict[str, Any] = {
        "requested": False, "over_budget": False, "candidates": Pool(True, True), "cold_start": False, "settled": False,
        "waiting": False,
        "has_query_strategies": True, "max_steps": None, "budget": None, **changes,
    }  # fmt: skip
    return nothing_to_label(**given)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"requested": True}, None),
        ({}, EndKind.QUERY),
        ({"max_steps": 5}, None),
        ({"max_steps": 5, "candidates": Pool(False, True)}, EndKind.QUERY),
        ({"has_query_strategies": False}, None),
        ({"candidates": Pool(True, False)}, EndKind.POOL),
        ({"candidates": Pool(False, False)}, EndKind.QUERY),
        ({"over_budget": True, "budget": 4.0}, EndKind.BUDGET),
        ({"over_budget": True, "budget": 4.0, "requested": True}, None),
        ({"cold_start": True, "settled": True}, None),
        ({"cold_start": True}, EndKind.START_FAILED),
        ({"cold_start": True, "waiting": True}, EndKind.START_WAITING),
    ],
)
def test_step_that_asked_for_nothing(changes: dict[str, Any], kind: EndKind | None) -> None:
    end = reason(**changes)
    assert (None if end is None else end.kind) is kind


def test_labels_that_keep_failing_end_the_run() -> None:
    assert keeps_failing(None, 0.5) is None
    end = keeps_failing("5 of the last 5 answers", 0.5)
    assert end is not None
    assert (end.kind, "max_failure_rate=0.5" in end.text) == (EndKind.LABELS_FAIL, True)


@pytest.mark.parametrize(
    ("requested", "labeled", "refused", "ends"), [(3, 0, 3, True), (3, 1, 2, False), (3, 0, 2, False), (0, 0, 0, False)]
)
def test_step_whose_answers_were_all_refused_ends_the_run(
    requested: int, labeled: int, refused: int, ends: bool
) -> None:
    record = {"requested": requested, "labeled": labeled, "refused": refused}
    end = all_refused(record, lambda: [{"reason": "it has the wrong shape", "count": 3}])
    assert (end is not None and end.kind is EndKind.LABELS_REFUSED) == ends
    assert end is None or "it has the wrong shape" in end.text


class Store:
    """A store, as far as it is asked here."""

    def __init__(self, *, waits: bool = False, **meta: Any) -> None:
        self._meta, self._waits = meta, waits

    def meta(self) -> dict[str, Any]:
        return self._meta

    @property
    def steps(self) -> Any:
        return SimpleNamespace(committed=lambda: 1)

    @property
    def requests(self) -> Any:
        return SimpleNamespace(waits_before=lambda step: self._waits)


def ended(kind: EndKind | None, *, had: float | None = None, **store: Any) -> Store:
    return Store(end=kind, reason="all 3 steps are done", budget=had, **store)  # the text decides nothing


@pytest.mark.parametrize(
    ("store", "budget", "finished"),
    [
        (Store(status="running"), None, False),
        (Store(status="interrupted", end=None, reason=None), None, False),
        (ended(EndKind.CRITERION), None, True),
        (ended(EndKind.STEPS), None, False),
        (ended(EndKind.WAITING), None, False),
        (ended(EndKind.LABELS_FAIL), None, False),
        (ended(EndKind.LABELS_REFUSED), None, False),
        (ended(EndKind.POOL), None, True),
        (ended(EndKind.QUERY), None, True),
        (ended(EndKind.BUDGET, had=4.0), 4.0, True),
        (ended(EndKind.BUDGET, had=4.0), 3.75, True),
        (ended(EndKind.BUDGET, had=4.0), 5.0, False),
        (ended(EndKind.BUDGET, had=4.0), None, False),
        (ended(EndKind.START_WAITING, waits=True), None, False),
        (ended(EndKind.START_FAILED, waits=True), None, False),
        (ended(EndKind.START_WAITING), None, True),
        (ended(EndKind.START_FAILED), None, True),
    ],
)
def test_finished_run_goes_on_only_where_the_settings_allow_more(
    store: Any, budget: float | None, finished: bool
) -> None:
    assert (why_finished(store, store.meta(), budget) is not None) == finished
