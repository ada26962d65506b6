"""Requests that were in flight when a run was cut off: a label strategy had taken them and not answered."""

from __future__ import annotations

from typing import Any, Literal

from alcore.driver.answer_queue import AnswerQueue
from alcore.errors import UsageError, raised_by
from alcore.protocols import Failed, Label, Request
from alcore.store.run import RunStore

InDoubt = Literal["ask", "drop"]
"""What to do with them: ask again, or give them up."""


def tracks_in_flight(strategy: Any) -> bool:
    """Tell whether the requests that a label strategy takes are to be recorded.

    They need not be for one that is ``idempotent``, which may be asked again under the same request id, or that
    answers with ids of the pool (``labels_by_id``).
    """
    return strategy is not None and not (
        getattr(strategy, "idempotent", False) or getattr(strategy, "labels_by_id", False)
    )


def check_decided(strategy: Any, store: RunStore, decision: InDoubt | None) -> None:
    """Raise `UsageError` where something was in flight, and neither label strategy nor user decides."""
    requests = _undecided(strategy, store)
    if requests and decision is None:
        shown = ", ".join(str(request.item)[:40] for request in requests[:5]) + (", ..." if len(requests) > 5 else "")
        raise UsageError(
            f"{len(requests)} requests were with {type(strategy).__name__} when the run was cut off, and may have been "
            f"carried out without the answer having arrived: {shown}. Decide with --in-doubt ask (ask again, perhaps "
            "pay twice) or --in-doubt drop (give them up); from Python, restore(in_doubt=...). A label strategy that "
            "offers poll(request_id), or declares idempotent = True, needs no decision."
        )


def release_in_flight(strategy: Any, store: RunStore, decision: InDoubt | None) -> None:
    """Settle what was in flight as the user says, unless the label strategy can be polled."""
    if _undecided(strategy, store):
        store.release_in_flight(drop_in=store.last_step() if decision == "drop" else None)


def poll_in_flight(strategy: Any, store: RunStore, answers: AnswerQueue) -> None:
    """Ask a label strategy for the answers to what was in flight; what it doesn't have is open again."""
    requests = store.in_flight() if callable(getattr(strategy, "poll", None)) else []
    for request in requests:
        with raised_by(f"poll() of {type(strategy).__name__}"):
            answer = strategy.poll(request.id)
        if answer is not None:
            answers.put(answer if isinstance(answer, Label | Failed) else Label(request, answer))
    store.release_in_flight()


def _undecided(strategy: Any, store: RunStore) -> list[Request]:
    """Return what was in flight, unless the label strategy can be polled."""
    return [] if callable(getattr(strategy, "poll", None)) else store.in_flight()
