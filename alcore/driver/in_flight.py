"""Requests that were in flight when a run was cut off: a label strategy had taken them and not answered."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.ledger import RequestLedger
from alcore.errors import UsageError, raised_by
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import PENDING, Failed, Label, Request
from alcore.store.run import RunStore
from alcore.strategies.label_options import doubt_of, poll_of

InDoubt = Literal["ask", "drop"]
"""What to do with them: ask again, or give them up."""


def check_decided(strategy: Any, store: RunStore, decision: InDoubt | None) -> None:
    """Raise `UsageError` where something was in flight, and neither label strategy nor user decides."""
    requests = _in_doubt(strategy, store)
    if requests and decision is None:
        shown = ", ".join(str(request.item)[:40] for request in requests[:5]) + (", ..." if len(requests) > 5 else "")
        raise UsageError(
            f"{len(requests)} requests were with {type(strategy).__name__} when the run was cut off, and may have been "
            f"carried out without the answer having arrived: {shown}. Decide with --in-doubt ask (ask again, perhaps "
            "pay twice) or --in-doubt drop (give them up); from Python, restore(in_doubt=...). A label strategy that "
            "offers poll(request_id) or is_in_doubt(request), or declares idempotent = True, needs no decision."
        )


def release_in_flight(strategy: Any, store: RunStore, decision: InDoubt | None) -> None:
    """Make requests in flight plain open ones again; with the decision ``"drop"``, give up those that are in doubt.

    Nothing is done if the label strategy can be polled: `poll_in_flight` asks it what has become of them.
    """
    requests = _in_flight(strategy, store)
    if requests:
        in_doubt = {request.id for request in _in_doubt(strategy, store)}
        kept = [request.id for request in requests if request.id not in in_doubt]
        store.requests.release_in_flight(drop_in=store.steps.last() if decision == "drop" else None, kept=kept)


def poll_in_flight(strategy: Any, store: RunStore, ledger: RequestLedger, answers: AnswerQueue) -> bool:
    """Ask a label strategy that can be polled for the answers to what it has taken.

    Returns
    -------
    bool
        Whether anything has changed: an answer was delivered, or a request that it never got is open again.
    """
    poll = poll_of(strategy)
    if poll is None:
        return False
    unknown: list[Request] = []
    delivered = False
    for request in store.requests.in_flight():
        with raised_by(f"poll() of {type(strategy).__name__}"):
            answer = poll(request.id)
        if answer is None:
            unknown.append(request)
        elif answer is not PENDING:
            named = isinstance(answer, Label | Failed)  # whatever it names: it is the answer to what was asked for
            answers.put(dataclasses.replace(answer, item=request) if named else Label(request, answer))
            delivered = True
    if unknown:
        store.requests.mark_given_back(unknown)
        ledger.leave(request.id for request in unknown)
    return delivered or bool(unknown)


def _in_flight(strategy: Any, store: RunStore) -> list[Request]:
    """Return what was in flight, unless the label strategy can be polled, which says what has become of it."""
    return store.requests.in_flight() if poll_of(strategy) is None else []


def _in_doubt(strategy: Any, store: RunStore) -> list[Request]:
    """Return the requests in flight without an answer whose outcome the label strategy doesn't know."""
    requests = _without_answer(_in_flight(strategy, store), store)
    is_in_doubt = doubt_of(strategy)
    if is_in_doubt is None:
        return requests
    with raised_by(f"is_in_doubt() of {type(strategy).__name__}"):
        return [request for request in requests if is_in_doubt(request)]


def _without_answer(requests: list[Request], store: RunStore) -> list[Request]:
    """Return those of these requests that have no answer in the inbox."""
    if not requests:
        return []
    answered = {_key(answer) for _, answers, _ in store.inbox.read() for answer in answers or ()}
    return [
        request
        for request in requests
        if request.id not in answered and (type(request.item) is not int or request.item not in answered)
    ]


def _key(answer: Any) -> Any:
    """Return the id of the request, or the sample, that an answer names; None if it names neither."""
    named = answer.item if isinstance(answer, Label | Failed) else answer
    return named.id if isinstance(named, Request) else as_sample_id(named)
