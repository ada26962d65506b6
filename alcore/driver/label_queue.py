"""The label queue: each answer is checked, matched with its request, and committed when `put` returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from alcore.codec import dumps
from alcore.driver import answers
from alcore.driver.request_queue import RequestQueue
from alcore.errors import EncodingError
from alcore.pools import as_sample_id
from alcore.protocols import Failed, Label, Request
from alcore.store import history
from alcore.store.history import Delivered
from alcore.store.run import RunStore


class LabelQueue:
    """Where a label strategy delivers; `put` may be called from any thread.

    Parameters
    ----------
    store
        The run that the answers are committed to.
    requests
        Where a request goes back to when it is to be tried again.
    check
        Says what is wrong with a label's value, or None.
    cost
        Gives what a label costs that doesn't say so itself.
    retries
        How often a request that failed is tried again.
    state
        Gives what of the label strategy's state is to be committed with each answer, or None.
    after_commit
        Called when answers are safe, in the thread that put them.
    """

    def __init__(
        self,
        store: RunStore,
        requests: RequestQueue,
        check: Callable[[Any], str | None],
        cost: Callable[[Any], float],
        retries: int,
        *,
        state: Callable[[], str | None] = lambda: None,
        after_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._requests = store, requests
        self._check, self._cost, self._retries = check, cost, retries
        self._state, self._after_commit = state, after_commit
        self._lock = threading.RLock()
        self._open: dict[str, Request] = {}
        self._samples: dict[int, str] = {}
        self._delivered: dict[str, Delivered] = {}
        self._handed_over: set[str] = set()  # in the phase begun last, which may be called by hand and again
        self._step = self._begun = 0
        self._ids = False  # whether this run has ever asked for a sample, so that a bare integer is an id
        self._behind = False  # memory is to be read anew, since a commit failed
        self._faults: dict[threading.Thread, BaseException] = {}  # of threads whose last put failed

    @property
    def counts(self) -> dict[str, int]:
        """How many requests the phase begun last settled as labelled or failed, and how many answers it refused."""
        return history.label_counts(self._store.database, self._begun)

    def begin(self, step: int) -> list[Request]:
        """Start a labeling phase, or go on with one that was cut off.

        What was answered or given up before, after the phase of the step before it had ended, is counted in.

        Parameters
        ----------
        step
            Its step.

        Returns
        -------
        list of Request
            The open ones, as a label strategy is to get them.
        """
        with self._lock:
            if step != self._begun:
                self._handed_over.clear()
            self._step = self._begun = step
            return self._read()

    def _read(self) -> list[Request]:
        """Take over what is on the disk; return the open requests."""
        database, requests = self._store.database, self._store.open_requests()
        found = history.delivered_in(database, self._step)
        delivered = [one for one in found if one.request.id not in self._handed_over]
        known = [*requests, *(one.request for one in delivered)]
        given_up = history.given_up_in(database, self._step)
        self._requests.settle(self._open.keys() - {one.id for one in requests})
        self._ids = self._ids or history.asks_for_samples(database)
        self._open = {one.id: one for one in sorted(requests, key=lambda one: (one.step, one.ordinal))}
        self._delivered = {one.request.id: one for one in delivered}
        self._samples = {request.item: request.id for request in known if type(request.item) is int} | given_up
        self._behind = False
        return requests

    def take(self, unlabeled: Any = None) -> list[Any]:
        """End a labeling phase: return what the training pool is to append, in the order of the requests.

        An answer that comes later, from a thread of the label strategy, belongs to the next phase.

        Parameters
        ----------
        unlabeled
            The pool that was chosen from, where that is not the training pool: a sample id means nothing to
            the training pool then, and is completed to an item.

        Raises
        ------
        BaseException
            What a put raised that its thread has not made good: it may hold an answer that is nowhere else.
        """
        with self._lock:
            for fault in self._faults.values():
                raise fault
            if self._behind:
                self._read()
            delivered, self._delivered = self._delivered, {}
            self._handed_over.update(delivered)
            self._step = self._begun + 1
        ordered = sorted(delivered.values(), key=lambda one: (one.request.step, one.request.ordinal))
        return answers.for_pool(ordered, unlabeled)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer; it is on the disk when this returns.

        Parameters
        ----------
        item
            A bare sample id (the pool knows the answer), `Label`, `Failed`, or any value that can be stored,
            which answers the oldest open request.
        block, timeout
            As in `queue.Queue`; this never waits for a place.
        """
        del block, timeout
        self.put_many([item])

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver several answers in one transaction; one that is refused doesn't keep the others.

        When this raises, none of them is on the disk, unless it was interrupted; they may be put again.
        """
        self._store.database.check_usable()
        with self._lock:
            try:
                retries, settled = self._commit(items)
            except BaseException as error:
                self._behind = True
                self._faults[threading.current_thread()] = error
                raise
            self._faults.pop(threading.current_thread(), None)
            self._requests.settle(settled)
        for request in retries:
            self._requests.requeue(request)
        self._after_commit()

    def _commit(self, items: Iterable[Any]) -> tuple[list[Request], list[str]]:
        """Commit answers; return what is to be tried again, and the keys of what is not open any more."""
        if self._behind:
            self._read()
        self._settled: list[str] = []
        with self._store.database.transaction() as connection:
            retries = [again for item in items if (again := self._take_in(item, connection)) is not None]
            if (state := self._state()) is not None:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('labeler', ?)", (dumps(state),))
        return retries, self._settled

    def put_nowait(self, item: Any) -> None:
        """Do as `put` does, which never waits."""
        self.put(item)

    def qsize(self) -> int:
        """Return how many answers this phase has delivered."""
        return len(self._delivered)

    def empty(self) -> bool:
        """Tell whether this phase has delivered nothing yet."""
        return not self._delivered

    def _take_in(self, item: Any, connection: Any) -> Request | None:
        """Store one answer; return the request if it is to be tried again."""
        key = self._match(item)
        if key is None or (key not in self._open and key not in self._delivered):
            self._refuse(connection, None, item, "nobody asked for it, or it was labelled or given up before")
            return None
        before = self._delivered.get(key)
        request = before.request if before is not None else self._open[key]
        try:
            if isinstance(item, Failed):
                raise answers.BadAnswerError(item.reason)
            answer = answers.delivered(request, item, self._check, self._cost)
        except (EncodingError, answers.BadAnswerError) as error:
            return self._fail(connection, request, item, str(error))
        if before is None:
            connection.execute(
                "UPDATE requests SET state = 'labelled', closed = ?, taken = 0 WHERE id = ?", (self._step, key)
            )
            self._close(key)
        elif before[2:5] == answer[2:5]:
            self._note(connection, request, item, "a repeat of the answer that is there", repeat=True)
            return None
        elif before.source != answer.source:
            self._refuse(connection, request, item, f"{before.source or 'another answer'!r} was first")
            return None
        else:  # a correction by the same source: the old answer is kept beside the new one
            connection.execute("UPDATE labels SET superseded = 1 WHERE request = ?", (key,))
        connection.execute(
            "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (key, self._step, answer.source, request.attempt, answer.kind, answer.value, answer.cost, time.time()),
        )
        self._delivered[key] = answer
        return None

    def _match(self, item: Any) -> str | None:
        """Return the key of the request that an answer is for."""
        named = item.item if isinstance(item, Label | Failed) else item
        if isinstance(named, Request):
            return named.id
        sample = as_sample_id(named)
        if sample is not None and sample in self._samples:
            return self._samples[sample]
        if isinstance(item, Label | Failed):
            return self._match_generated(named)
        if sample is not None and self._ids:
            return None
        return next(iter(self._open), None)

    def _match_generated(self, named: Any) -> str | None:
        known = [*self._open.values(), *(one.request for one in self._delivered.values())]
        for request in known:
            if request.item is named:
                return request.id
        try:
            text = dumps(named)
        except EncodingError:
            return None
        return next((request.id for request in known if dumps(request.item) == text), None)

    def _fail(self, connection: Any, request: Request, item: Any, reason: str) -> Request | None:
        """Keep a failure; return the request with its next attempt if there is one left."""
        if request.id in self._delivered:
            self._refuse(connection, request, item, f"{reason}; the answer that is there stays")
            return None
        self._refuse(connection, request, item, reason)
        again = Request(request.id, request.step, request.ordinal, request.item, request.attempt + 1)
        connection.execute("UPDATE requests SET attempt = ?, taken = 0 WHERE id = ?", (again.attempt, request.id))
        if again.attempt <= self._retries:
            self._open[request.id] = again
            return again
        connection.execute("UPDATE requests SET state = 'failed', closed = ? WHERE id = ?", (self._step, request.id))
        self._close(request.id)
        return None

    def _close(self, key: str) -> None:
        del self._open[key]
        self._settled.append(key)

    def _refuse(self, connection: Any, request: Request | None, item: Any, reason: str) -> None:
        """Keep an answer aside that can't be taken."""
        self._note(connection, request, item, reason, repeat=False)

    def _note(self, connection: Any, request: Request | None, item: Any, reason: str, *, repeat: bool) -> None:
        connection.execute(
            "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)",
            (request.id if request else None, self._step, answers.as_text(item), reason, repeat, time.time()),
        )
