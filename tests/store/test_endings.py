"""How the end of a run is written and read, and what the sentences of format 2 meant."""

from __future__ import annotations

from typing import Any

import pytest

from alcore.protocols import EndKind, EndReason
from alcore.store.endings import GOES_ON, OF_THE_END, end_of, facts_of, facts_of_format_2


@pytest.mark.parametrize("kind", EndKind)
def test_reason_comes_back_whatever_its_text(kind: EndKind) -> None:
    facts = facts_of(EndReason(kind, "all 3 steps are done"), None, ended="now", budget=2.0)
    assert end_of(facts) == EndReason(kind, "all 3 steps are done")
    assert facts["status"] == kind.status
    assert set(facts) == set(OF_THE_END)
    assert end_of({**facts, **GOES_ON}) is None


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (ValueError("no"), "failed"), (SystemExit(3), "failed")]
)
def test_error_counts_before_a_reason(error: BaseException, status: str) -> None:
    facts = facts_of(EndReason(EndKind.STEPS, "all 3 steps are done"), error, ended="now", budget=None)
    assert (facts["status"], end_of(facts)) == (status, None)
    assert facts["error"].startswith(type(error).__name__)


def test_statuses_of_the_kinds() -> None:
    by_status: dict[str, set[str]] = {}
    for kind in EndKind:
        by_status.setdefault(kind.status, set()).add(kind.value)
    assert by_status == {
        "done": {"steps", "criterion", "budget", "pool", "query"},
        "waiting": {"waiting", "start-waiting"},
        "failed": {"start-failed", "labels-fail", "labels-refused"},
    }


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("all 3 steps are done", EndKind.STEPS),
        ("all classes are found", EndKind.CRITERION),
        ("all 3 steps are done, says my criterion", EndKind.CRITERION),
        ("the budget of 15.5 is spent", EndKind.BUDGET),
        ("the budget of my cluster is used up", EndKind.CRITERION),
        ("waiting for labels: job 7", EndKind.WAITING),
        ("waiting for labels: job 7\nand 8", EndKind.WAITING),
        ("waiting for labels is not worth it", EndKind.CRITERION),
        ("nothing is labelled yet, and the requests of the start are open", EndKind.START_WAITING),
        ("nothing is labelled yet, and the requests of the start were given up", EndKind.START_FAILED),
        ("labels keep failing: 4 of 5 were failures, more than max_failure_rate=0.5 allows", EndKind.LABELS_FAIL),
        ("the pool has no unlabelled sample left", EndKind.POOL),
        ("the query strategies asked for nothing", EndKind.QUERY),
    ],
)
def test_sentences_of_format_2_have_their_kinds(reason: str, kind: EndKind) -> None:
    for status in ("done", "waiting"):
        facts: dict[str, Any] = facts_of_format_2({"status": status, "reason": reason})
        assert (facts["status"], facts["end"]) == (kind.status, kind)
        assert facts["budget"] == (15.5 if kind is EndKind.BUDGET else None)


@pytest.mark.parametrize(
    "meta", [{"status": "running"}, {"status": "done", "reason": None}, {"status": "failed", "reason": "good enough"}]
)
def test_runs_of_format_2_without_a_reason_have_no_end(meta: dict[str, Any]) -> None:
    assert facts_of_format_2(meta) == {"end": None}
