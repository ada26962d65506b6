"""Takes requests out, has them called in a backend, and delivers what comes of them; nothing is lost if it is ended."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from alcore.errors import Interrupted, UsageError
from alcore.protocols import Failed, Label, LabelQueue, QueryQueue, Request
from alcore_labelers.backends import Backend, BrokenWorkersError, outcomes_of, timed_out
from alcore_labelers.calls import CallOutcome, Inputs
from alcore_labelers.queues import give_back

Answer = Label | Failed
_TICK = 0.2  # seconds between two looks at what no event tells
_MOST_BREAKS = 3  # how often in a row all workers may end before a call is done


@dataclasses.dataclass(eq=False)
class Call:
    """A call of the function, which may be tried several times.

    Parameters
    ----------
    requests
        What it answers.
    inputs
        What it is given.
    given
        The part of each request in it.
    tries
        How often it was tried.
    paid
        What the tries have cost so far, for each request; 1 for a try of which nobody says so.
    is_priced
        Whether it is known what each try has cost.
    begun
        When the try under way was handed over, on the monotonic clock; 0 where it was not.
    answers
        What is to be delivered, after the last try.
    """

    requests: Sequence[Request]
    inputs: Inputs
    given: Sequence[Any]
    tries: int = 0
    paid: list[float] = dataclasses.field(default_factory=list)
    is_priced: bool = True
    begun: float = 0.0
    answers: list[Answer] = dataclasses.field(default_factory=list)


class _Waiting(NamedTuple):
    """A call that is to be tried again: when, on the monotonic clock, its number, and what the last try came to."""

    due: float
    number: int
    call: Call
    outcomes: list[CallOutcome]


class Rules(Protocol):
    """What the label strategy decides about calls."""

    def calls(self, requests: Sequence[Request]) -> list[Call]:
        """Return the calls that these requests are answered by."""

    def retry_after(self, call: Call, outcomes: Sequence[CallOutcome]) -> float | None:
        """Note a try of a call; return the seconds until the next one, or None after the last, with its `answers`."""

    def conclude(self, call: Call, outcomes: Sequence[CallOutcome]) -> None:
        """Make these outcomes the `answers` of a call, which is not tried again."""

    def deliver(self, answers: LabelQueue, call: Call) -> None:
        """Deliver the answers of a call."""


class Dispatcher:
    """Keeps a backend busy with the requests of a labeling phase.

    The work is done in a thread of its own, which no signal interrupts: what it has taken out and what it has delivered
    is always known. The main thread waits, and can be interrupted at any time.

    Parameters
    ----------
    rules
        The label strategy.
    requests, answers
        The two queues of the phase.
    make_backend
        Called at the start, and again when all workers have ended.
    size
        The number of items in a call.
    most
        How many requests are taken out at a time.
    timeout
        Seconds after which a call is not waited for, where the backend doesn't end it; None sets no limit.
    repeatable
        Whether a call that may have begun can be given back, since it may be carried out twice.
    safe_point
        Called now and then in the main thread; it raises where the run is to end.
    """

    def __init__(
        self,
        rules: Rules,
        requests: QueryQueue,
        answers: LabelQueue,
        make_backend: Callable[[], Backend],
        *,
        size: int,
        most: int,
        timeout: float | None,
        repeatable: bool,
        safe_point: Callable[[], None],
    ) -> None:
        self._rules, self._requests, self._answers, self._make_backend = rules, requests, answers, make_backend
        self._size, self._most, self._timeout, self._repeatable = size, most, timeout, repeatable
        self._safe_point = safe_point
        self._running: dict[Future[list[CallOutcome]], Call] = {}
        self._waiting: list[_Waiting] = []  # a heap, by time
        self._unbegun: dict[str, Request] = {}  # taken out, and in no call yet, by id
        self._out = 0  # how many requests are taken out and have no answer
        self._count = itertools.count()
        self._done: queue.SimpleQueue[Future[list[CallOutcome]] | None] = queue.SimpleQueue()
        self._breaks = 0
        self._ended, self._finished = False, threading.Event()
        self._error: BaseException | None = None
        self._backend: Backend | None = None

    def run(self) -> None:
        """Answer all requests; if this is interrupted, what is done is delivered, and the rest given back."""
        thread = threading.Thread(target=self._work, name="labeling", daemon=True)
        thread.start()
        try:
            while not self._finished.wait(_TICK):
                self._safe_point()
        except BaseException:
            self._ended = True
            self._done.put(None)
            thread.join()
            raise
        thread.join()
        if self._error is not None:
            raise self._error
        self._safe_point()

    # -- in the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._backend = self._make_backend()
            while not self._ended:
                self._fill()
                if not self._running and not self._waiting:
                    self._backend.close()
                    self._backend = None
                    break
                self._collect()
                self._heed_recall()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = error
        try:
            self._set_down()
        except BaseException as error:  # noqa: BLE001 - likewise
            self._error = self._error or error
        self._finished.set()

    def _fill(self) -> None:
        """Hand over the calls whose time has come, and as many new ones as there is room for."""
        while self._waiting and self._waiting[0].due <= time.monotonic():
            self._submit(heapq.heappop(self._waiting).call)
        free = self._most - self._out
        free -= free % self._size
        if free <= 0 or self._requests.empty():
            return
        self._unbegun = {request.id: request for request in self._requests.get_many(free)}
        self._out += len(self._unbegun)
        for call in self._rules.calls(list(self._unbegun.values())):
            self._submit(call)

    def _submit(self, call: Call) -> None:
        assert self._backend is not None
        call.begun, fault = 0.0, None
        try:
            future = self._backend.submit(call.inputs)
            call.begun = time.monotonic()
        except BrokenWorkersError as error:
            future, fault = Future(), error
        except BaseException:
            self._unbegun |= {request.id: request for request in call.requests}
            raise
        self._running[future] = call
        for request in call.requests:
            self._unbegun.pop(request.id, None)
        if fault is not None:
            self._replace_workers(fault)
        else:
            future.add_done_callback(self._done.put)

    def _collect(self) -> None:
        """Wait for calls, or until something else is due, and deliver what is done."""
        due = min(_TICK, max(0.0, self._waiting[0].due - time.monotonic())) if self._waiting else _TICK
        with contextlib.suppress(queue.Empty):
            future = self._done.get(timeout=due)
            while not self._ended:
                if future is not None and future in self._running:
                    self._settle(future)
                future = self._done.get_nowait()
        assert self._backend is not None
        if self._backend.is_broken():
            self._replace_workers(BrokenWorkersError("its pool has ended"))
        if self._timeout is not None and not self._backend.ends_calls:
            self._give_up_late_calls(self._timeout)

    def _heed_recall(self) -> None:
        """Give back the calls that have not begun and should not; end those that would be tried again."""
        assert self._backend is not None
        recalled = {request.id for request in self._requests.recalled()}
        if not recalled:
            return
        for waiting in [waiting for waiting in self._waiting if _is_among(waiting.call, recalled)]:
            self._rules.conclude(waiting.call, waiting.outcomes)
            self._deliver(waiting.call)
            self._waiting.remove(waiting)
            self._out -= len(waiting.call.requests)
        heapq.heapify(self._waiting)
        if self._backend.ends_calls and not self._repeatable:  # there, cancel() may end what has just begun
            return
        for future, call in list(self._running.items()):
            if not call.tries and _is_among(call, recalled) and not future.running() and future.cancel():
                del self._running[future]
                self._out -= len(call.requests)
                give_back(self._requests, call.requests)

    def _settle(self, future: Future[list[CallOutcome]]) -> None:
        call = self._running[future]
        seconds = time.monotonic() - call.begun
        try:
            outcomes = outcomes_of(future, len(call.requests), self._timeout, seconds)
        except BrokenWorkersError as error:
            self._replace_workers(error)
            return
        self._breaks = 0
        self._finish(future, outcomes)

    def _finish(self, future: Future[list[CallOutcome]], outcomes: list[CallOutcome]) -> None:
        call = self._running[future]
        delay = None if call.answers else self._rules.retry_after(call, outcomes)
        if delay is None:
            self._deliver(call)
            self._out -= len(call.requests)
        else:
            heapq.heappush(self._waiting, _Waiting(time.monotonic() + delay, next(self._count), call, outcomes))
        del self._running[future]

    def _deliver(self, call: Call) -> None:
        try:
            self._rules.deliver(self._answers, call)
        except Interrupted:  # in this thread, that comes after the commit
            self._ended = True

    def _give_up_late_calls(self, timeout: float) -> None:
        now = time.monotonic()
        for future, call in list(self._running.items()):
            if now - call.begun > timeout and not future.done():
                future.cancel()  # what has not begun never does; of what has, the result is dropped
                late = timed_out(timeout)._replace(seconds=(now - call.begun) / len(call.requests))
                self._finish(future, [late] * len(call.requests))

    def _replace_workers(self, error: BrokenWorkersError) -> None:
        """Start new workers; calls of which nothing is known are tried anew, or fail if they must not be."""
        assert self._backend is not None
        self._breaks += 1
        if self._breaks >= _MOST_BREAKS:
            raise UsageError(
                f"the function can't be called where it is to run, since all workers have ended {self._breaks} times "
                f"before one call was done ({error}). What they wrote on stderr says why. A script that starts worker "
                'processes must start its run under `if __name__ == "__main__":`, and the function must be in a '
                "module that they can import."
            )
        self._backend.stop()
        self._backend = self._make_backend()
        for future, call in list(self._running.items()):
            if future not in self._running:  # the new workers have ended meanwhile, and were replaced as well
                continue
            if future.done() and future.exception() is None:
                self._settle(future)
            elif self._repeatable or not call.begun:
                del self._running[future]
                self._submit(call)
            else:
                gone = CallOutcome("infrastructure", reason=f"its worker has ended ({error})")
                self._finish(future, [gone] * len(call.requests))

    def _set_down(self) -> None:
        """Deliver what is done, end the workers, and give back what has no answer, if it may be asked for again."""
        errors: list[BaseException] = []
        for future in [future for future in self._running if future.done() and not future.cancelled()]:
            call = self._running[future]
            try:
                seconds = time.monotonic() - call.begun
                self._finish(future, outcomes_of(future, len(call.requests), self._timeout, seconds))
            except BrokenWorkersError:
                pass
            except BaseException as error:  # noqa: BLE001 - the others are delivered first
                errors.append(error)
        for future in self._running:
            future.cancel()
        if self._backend is not None:
            self._backend.stop()
        calls = [*self._running.values(), *(waiting.call for waiting in self._waiting)]
        left = [request for call in calls if self._repeatable or not call.begun for request in call.requests]
        give_back(self._requests, [*self._unbegun.values(), *left])
        if errors:
            raise errors[0]


def _is_among(call: Call, keys: Set[str]) -> bool:
    return all(request.id in keys for request in call.requests)
