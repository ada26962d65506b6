"""The query queue: what strategies put into it, labelers take out of it, each request once."""

from __future__ import annotations

import collections
import math
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from alcore.codec import dumps
from alcore.errors import QueryError
from alcore.pools import as_sample_id
from alcore.pools.candidates import Candidates
from alcore.protocols import Queue, Request
from alcore.store.history import Asked
from alcore.store.run import request_id


class RequestQueue:
    """A facade over the user's queue that normalises, counts and drops repeats.

    Parameters
    ----------
    transport
        Built by ``StrategiesConfig.queue_cls``. Small integers travel through it, one a request, so that it
        may be a queue between processes, last in first out, or ordered by priority (the oldest first).
    candidates
        What may be asked for; what is asked for is taken from it.
    run_id
        Part of each request's key.
    cost
        Gives what the label of an item will cost.
    """

    def __init__(self, transport: Queue, candidates: Candidates, run_id: str, cost: Callable[[Any], float]) -> None:
        self._transport = transport
        self._candidates = candidates
        self._run_id = run_id
        self._cost = cost
        self._lock = threading.Lock()
        self._in_flight: dict[int, Request] = {}  # by ticket
        self._tickets_of: dict[str, list[int]] = {}  # by request
        self._settled: set[str] = set()  # what was answered or given up since the query phase began
        self._waiting = 0  # tickets in the transport that nobody is taking out yet
        self._tickets = 0
        self._step = self._ordinal = 0
        self._strategy = ""
        self.allowance = float("inf")
        self._rank = 0
        self.share: int | None = None
        """How many the strategy at work is to ask for, where the step's number is shared out."""
        self.on_take: Callable[[Request], None] = lambda _request: None
        """Called with each request that a label strategy takes out, before it gets it."""
        self.asked: list[Asked] = []
        self.dropped: collections.Counter[str] = collections.Counter()

    def begin(self, step: int, allowance: float) -> None:
        """Start a query phase that may ask for labels worth `allowance`."""
        self._ordinal = self._ordinal + len(self.asked) if step == self._step else 0
        self._step, self.allowance = step, allowance
        self.asked, self.dropped = [], collections.Counter()
        self._settled.clear()

    def adopt(self, recorded: Sequence[Asked], allowance: float | None = None) -> None:
        """Take what is on record for this phase, or what rank 0 asked for, in place of what was asked now.

        Parameters
        ----------
        recorded
            What counts.
        allowance
            What may still be spent after it; as it was where it is None.
        """
        self.allowance = self.allowance if allowance is None else allowance
        before, known = self.asked, {one.sample for one in recorded}
        self.asked = list(recorded)
        self._candidates.take(one.sample for one in recorded if one.sample is not None)
        if gone := [one.sample for one in before if one.sample is not None and one.sample not in known]:
            self._candidates.put_back(gone)

    def asking(self, strategy: str, share: int | None = None) -> None:
        """Say which strategy the next puts come from, and how many of them count; all where it is None."""
        self._strategy, self._rank, self.share = strategy, 0, share

    def refill(self, requests: Sequence[Request]) -> None:
        """Make these, and nothing else, what is left to label."""
        if [one.id for one in self._in_flight.values()] == [one.id for one in requests]:
            # they are under way; what is handed out must be the very items that answers are matched with
            self._in_flight = dict(zip(self._in_flight, requests, strict=True))
            return
        while self._waiting:
            self._ticket()
        with self._lock:
            self._in_flight.clear()
            self._tickets_of.clear()
        for request in requests:
            self.requeue(request)

    def requeue(self, request: Request) -> None:
        """Put a request up for labeling (again)."""
        with self._lock:
            if request.id in self._settled:
                return
            ticket = self._tickets
            self._tickets += 1
            self._in_flight[ticket] = request
            self._tickets_of.setdefault(request.id, []).append(ticket)
            self._waiting += 1
        self._transport.put(ticket)

    def settle(self, keys: Iterable[str]) -> None:
        """Hand out no more what was answered or given up: it would be bought twice."""
        with self._lock:
            for key in keys:
                self._settled.add(key)
                for ticket in self._tickets_of.pop(key, ()):  # it stays in the transport, and is skipped there
                    del self._in_flight[ticket]

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Ask for the label of a sample id or a generated input.

        Parameters
        ----------
        item
            An integer of any kind is a sample id; a tensor, array or JSON-like value is a generated input.
        block, timeout
            As in `queue.Queue`; nothing here ever blocks.
        score
            What the strategy gave this item, to be kept with the request.
        """
        del block, timeout
        sample = as_sample_id(item)
        if sample is not None:
            if sample not in self._candidates:
                self.dropped[f"{self._strategy}: not an unlabelled sample, or asked for already"] += 1
                return
            item = sample
        elif item is None:
            raise QueryError(f"{self._strategy} put None into the query queue; put a sample id or an input.")
        else:
            dumps(item)  # raises here, where the strategy is to blame, if it can't be stored
        if self.share is not None and self._rank >= self.share:
            self.dropped[f"{self._strategy}: more than its share of samples_per_step"] += 1
            return
        cost = float(self._cost(item))
        if not 0 <= cost < math.inf:
            raise QueryError(f"the label strategy's cost of {item!r} is {cost!r}; it must be a finite amount.")
        if cost > self.allowance and not math.isclose(cost, self.allowance):  # 0.3 - 0.1 - 0.1 < 0.1
            self.dropped["over the budget"] += 1
            return
        self.allowance -= cost
        ordinal = self._ordinal + len(self.asked)
        request = Request(request_id(self._run_id, self._step, ordinal), self._step, ordinal, item)
        worth = None if score is None else float(score)
        self.asked.append(Asked(request, sample, self._strategy, worth, self._rank, cost))
        self._rank += 1
        if sample is not None:
            self._candidates.take([sample])
        self.requeue(request)

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Ask for several labels, best first."""
        for place, item in enumerate(items):
            self.put(item, score=None if scores is None else float(scores[place]))

    def put_nowait(self, item: Any) -> None:
        """Do as `put` does, which never waits."""
        self.put(item)

    def get_request(self) -> Request:
        """Take out the next request; raises `queue.Empty` when nothing is left."""
        request = self._next()
        self.on_take(request)
        return request

    def _next(self) -> Request:
        while not self.empty():
            ticket = self._ticket()
            with self._lock:
                request = self._in_flight.pop(ticket, None)
                if request is not None:
                    self._tickets_of[request.id].remove(ticket)
                    if not self._tickets_of[request.id]:
                        del self._tickets_of[request.id]
                    return request
        raise queue.Empty

    def _ticket(self) -> int:
        with self._lock:
            if not self._waiting:
                raise queue.Empty
            self._waiting -= 1  # before the wait: another thread must not wait for the same one
        try:
            return int(self._transport.get())
        except BaseException:
            with self._lock:
                self._waiting += 1
            raise

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out what was put; raises `queue.Empty` when nothing is left, since nothing more will come."""
        del block, timeout
        return self.get_request().item

    def get_nowait(self) -> Any:
        """Do as `get` does, which never waits."""
        return self.get()

    def empty(self) -> bool:
        """Tell whether nothing is left to label."""
        return not self.qsize()

    def qsize(self) -> int:
        """Return how many requests are left to label."""
        return min(self._waiting, len(self._in_flight))

    def task_done(self) -> None:
        """Do nothing; here for code that treats this as a `queue.Queue`."""
