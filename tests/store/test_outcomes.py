"""What a run has come to."""

from __future__ import annotations

import pytest

from alcore.store import outcome
from alcore.store.outcomes import KEEPS_FAILING, NOTHING_LABELED, WAITING


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("running", None, "running"),
        ("interrupted", None, "interrupted"),
        ("failed", "ValueError: no", "failed"),
        ("done", "all 3 steps are done", "done"),
        ("done", f"{KEEPS_FAILING}: 3 of 4 answers were failures", "failed"),
        ("done", WAITING, "waiting"),
        ("done", f"{NOTHING_LABELED}, and the requests of the start were given up", "failed"),
        ("done", None, "done"),
    ],
)
def test_outcome_tells_what_a_run_has_come_to(status: str, reason: str | None, expected: str) -> None:
    assert outcome(status, reason) == expected
