"""Requests that a label strategy was working on when the run was cut off: nobody knows whether they were bought."""

from __future__ import annotations

from typing import Any, Literal

from alcore.driver.label_queue import LabelQueue
from alcore.errors import UsageError
from alcore.protocols import Failed, Label, Request
from alcore.store import history
from alcore.store.run import RunStore

Decision = Literal["ask", "drop"]


def must_be_noted(strategy: Any) -> bool:
    """Tell whether it matters which requests a label strategy has taken out.

    It doesn't for one that is ``idempotent``, which may be asked again under the same request id, or that
    answers with ids of the pool (``labels_by_id``).
    """
    return strategy is not None and not (
        getattr(strategy, "idempotent", False) or getattr(strategy, "labels_by_id", False)
    )


def decide(strategy: Any, store: RunStore, decision: Decision | None) -> None:
    """Settle what is in doubt as the user says, unless the label strategy can be polled.

    Raises
    ------
    UsageError
        When something is in doubt and neither strategy nor user decides.
    """
    doubtful = store.in_doubt()
    if not doubtful or callable(getattr(strategy, "poll", None)):
        return
    if decision is None:
        shown = ", ".join(str(request.item)[:40] for request in doubtful[:5]) + (", ..." if len(doubtful) > 5 else "")
        raise UsageError(
            f"{len(doubtful)} requests were with {type(strategy).__name__} when the run was cut off, and may have been "
            f"carried out without the answer having arrived: {shown}. Decide with --in-doubt ask (ask again, perhaps "
            "pay twice) or --in-doubt drop (set them aside); from Python, restore(in_doubt=...). A label strategy that "
            "offers poll(request_id), or declares idempotent = True, is never in doubt."
        )
    store.settle_doubts(drop_in=history.last_step(store.database) if decision == "drop" else None)


def poll(strategy: Any, store: RunStore, answers: LabelQueue) -> list[Request]:
    """Ask a label strategy for the answers to what it had taken; return what is open after that."""
    doubtful = store.in_doubt() if callable(getattr(strategy, "poll", None)) else []
    for request in doubtful:
        answer = strategy.poll(request.id)
        if answer is not None:
            answers.put(answer if isinstance(answer, Label | Failed) else Label(request, answer))
    store.settle_doubts()
    return store.open_requests()
