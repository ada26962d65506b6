"""How the end of a run is written among what is known about the run as a whole, and read from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alcore.errors import message_of
from alcore.protocols import EndKind, EndReason

OF_THE_END = ("status", "end", "reason", "error", "ended", "budget")
"""The keys that say how a run ended."""

GOES_ON: Mapping[str, Any] = {"status": "running", "end": None, "reason": None, "error": None}
"""What is known about a run that goes on."""


def facts_of(
    reason: EndReason | None, error: BaseException | None, *, ended: str, budget: float | None
) -> dict[str, Any]:
    """Return what is known about a run that has ended.

    Parameters
    ----------
    reason
        Why it ended.
    error
        The exception that ended it; then `reason` doesn't count.
    ended
        When.
    budget
        The budget that it had; one that is larger allows more steps.
    """
    if error is not None:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        message = f"{type(error).__name__}: {message_of(error)}"
        return {"status": status, "end": None, "reason": None, "error": message, "ended": ended}
    if reason is None:
        return {"status": "done", "end": None, "reason": None, "error": None, "ended": ended}
    return {
        "status": reason.kind.status, "end": reason.kind.value, "reason": reason.text, "error": None, "ended": ended,
        "budget": budget,
    }  # fmt: skip


def end_of(meta: Mapping[str, Any]) -> EndReason | None:
    """Return why a run has ended; None where it goes on, or an error ended it."""
    kind = meta.get("end")
    return None if kind is None else EndReason(EndKind(kind), str(meta["reason"]))


def untrained(labels: int) -> str:
    """Return in words that so many labels came after the last training; empty where there are none."""
    if not labels:
        return ""
    return (
        f"{labels} label{'' if labels == 1 else 's'} came after the last training, so the learner does not know "
        f"{'it' if labels == 1 else 'them'}; with final_training, a run whose steps are done trains once more"
    )
