"""The tasks and answers of a run in an exchange, as the run's driver sees them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alcore.protocols import FAILURE_KINDS, Failed, Label, Request
from alcore_worker import documents
from alcore_worker.exchange import Exchange, FullError, calling_by
from alcore_worker.names import DocumentError, Note
from alcore_worker.retry import ExchangeRetry

_ROOM_AGAIN = 2.0  # seconds before another try to send what the exchange had no room for


class RunTasks:
    """The tasks and answers of one run. Each call waits as long as the exchange is away.

    Parameters
    ----------
    exchange
        The exchange.
    run
        The name of the run in it.
    note
        What workers are told about the run.
    logger
        Told when the exchange is away or full.
    safe_point
        Called while this waits.

    Attributes
    ----------
    reachable_since : float
        When the exchange was back last, on the monotonic clock.
    """

    def __init__(
        self, exchange: Exchange, run: str, note: Note, logger: logging.Logger, safe_point: Callable[[], None]
    ) -> None:
        self._plain, self._run, self._note, self._logger = exchange, run, note.to_bytes(), logger
        self._retry = ExchangeRetry(logger, safe_point, self._begin_again)
        self._exchange = calling_by(self._retry.call, exchange)
        self.where = exchange.where
        self.reachable_since = time.monotonic()
        self._room_after, self._told_full = 0.0, False
        self._is_cleared = False
        self.begin()

    def begin(self) -> None:
        """Make the run known, and what is missing of its place."""
        self._exchange.begin(self._run, self._note)

    def _begin_again(self) -> None:
        self._plain.begin(self._run, self._note)
        self.reachable_since = time.monotonic()

    def attend(self) -> None:
        """Say that the driver lives."""
        self._exchange.attend(self._run)

    def known(self) -> set[str]:
        """Return the names of the tasks that wait, are claimed, or are answered."""
        return self._exchange.known(self._run)

    def may_have_room(self) -> bool:
        """Return whether to try to send: not at once after there was no room."""
        return time.monotonic() >= self._room_after

    def has_no_room(self, error: FullError) -> None:
        """Note that the exchange takes nothing more now; reading what is answered there makes room."""
        self._room_after = time.monotonic() + _ROOM_AGAIN
        if not self._told_full:
            self._told_full = True
            self._logger.warning("%s; requests are sent when there is room again", error)

    def put(self, tasks: Mapping[str, bytes]) -> None:
        """Add tasks; `FullError` where there is no room."""
        if tasks:
            self._retry.call(lambda: self._plain.put(self._run, tasks), needs_room=True)
            self._told_full = False

    def put_blob(self, content: bytes) -> str:
        """Store arrays; `FullError` where there is no room."""
        return self._retry.call(lambda: self._plain.put_blob(self._run, content), needs_room=True)

    def answered(self) -> list[str]:
        """Return the names of the tasks that have an answer."""
        return self._exchange.answered(self._run)

    def remove(self, names: Sequence[str]) -> None:
        """Remove tasks with their answers, which are committed."""
        if names:
            self._exchange.remove(self._run, names)

    def withdraw(self, names: Sequence[str] | None = None) -> None:
        """Remove what waits and nobody needs any more: these, or all."""
        if names is None or names:
            self._exchange.withdraw(self._run, names)

    def give_up(self, names: Sequence[str]) -> None:
        """Remove what nobody is to work on any more; an answer that is there, or comes late, stays."""
        if names:
            self._exchange.give_up(self._run, names)

    def clear(self, unwanted: Iterable[str]) -> None:
        """Once: withdraw what was sent before the run was cut off, and was answered by somebody else since."""
        if not self._is_cleared:
            self._is_cleared = True
            self.withdraw(list(unwanted))

    def take_back(self, silent_after: float, most_lost: int) -> list[str]:
        """Let tasks of silent workers wait again; return those given up."""
        return self._exchange.take_back(self._run, silent_after, most_lost)

    def workers(self, silent_after: float) -> int:
        """Return how many workers were heard of in so many seconds."""
        return self._exchange.workers(silent_after)

    def read_answers(self, requests: Mapping[str, Request]) -> dict[str, Label | Failed]:
        """Return answers by name; one that is damaged is a failure."""
        return {name: self._read_answer(name, request) for name, request in requests.items()}

    def _read_answer(self, name: str, request: Request) -> Label | Failed:
        text = self._exchange.read_answer(self._run, name)
        try:
            if not text:
                raise DocumentError("it is a link or no regular file, or empty")
            return _answer(documents.read(text, lambda digest: self._exchange.get_blob(self._run, digest)), request)
        except DocumentError as error:
            return Failed(request, f"the answer of a worker can't be read: {error}", "infrastructure")


def _answer(content: Mapping[str, Any], request: Request) -> Label | Failed:
    kind, cost = content.get("kind"), content.get("cost")
    if cost is not None and not (isinstance(cost, int | float) and 0 <= cost <= sys.float_info.max):
        raise DocumentError(f"its cost is {cost!r:.40}")
    if kind == "label" and "value" in content:
        return Label(request, content["value"], str(content.get("source", ""))[:500], cost)
    if kind in FAILURE_KINDS:
        return Failed(request, str(content.get("reason", ""))[:2000] or "no reason was given", kind, cost)
    raise DocumentError(f"its kind is {kind!r:.40}")
