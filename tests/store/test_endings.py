"""How the end of a run is written and read."""

from __future__ import annotations

import pytest

from alcore.protocols import EndKind, EndReason
from alcore.store.endings import GOES_ON, OF_THE_END, end_of, facts_of


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
