"""Calls of an exchange that hang: nobody waits for them where a worker ends."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from alcore_worker.exchange import AwayError, Exchange

_LONGEST = 3.0  # seconds that a call may take where the worker ends
_LOOK = 0.2  # seconds between two looks whether it does


class _Reply:
    """What a call came to, which stays there where the caller is interrupted while it looks."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.result: Any = None
        self.fault: BaseException | None = None


_Calls = queue.SimpleQueue[tuple[Callable[[], Any], _Reply] | None]


class Calls:
    """Makes calls in threads of its own, so that a caller can leave one that hangs, be it in the kernel.

    A call takes as long as it takes, until the worker ends. Then it has `_LONGEST` seconds; after one that took longer,
    all others fail at once. A caller that is interrupted waits for its call likewise.

    Parameters
    ----------
    is_ending
        Tells whether the worker ends.
    where
        What is called.
    """

    def __init__(self, is_ending: Callable[[], bool], where: str) -> None:
        self._is_ending, self._where = is_ending, where
        self._idle: collections.deque[_Calls] = collections.deque()  # of threads that have nothing to do
        self._hangs = False

    def call(self, action: Callable[[], Any]) -> Any:
        """Return what a call returns, or raise what it raises; `AwayError` where it hangs, and the worker ends."""
        if self._hangs:
            raise self._late()
        reply = _Reply()
        try:
            calls = self._idle.pop()
        except IndexError:
            calls = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(calls,), name="exchange", daemon=True).start()
        calls.put((action, reply))
        self._wait(reply)
        if reply.fault is not None:
            raise reply.fault
        return reply.result

    def _wait(self, reply: _Reply) -> None:
        end: float | None = None
        interrupt: KeyboardInterrupt | None = None
        while not reply.is_there.is_set():
            try:
                reply.is_there.wait(_LOOK)
            except KeyboardInterrupt as error:  # what the call does is done, or not: not known by half
                if interrupt is not None:
                    raise
                interrupt = error
            if interrupt is not None or self._is_ending():
                end = end or time.monotonic() + _LONGEST
                if time.monotonic() > end:
                    self._hangs = True
                    raise interrupt or self._late()
        if interrupt is not None:
            raise interrupt

    def _late(self) -> AwayError:
        return AwayError(f"{self._where}: it did not answer in {_LONGEST:g} s")

    def _work(self, calls: _Calls) -> None:
        while (found := calls.get()) is not None:
            action, reply = found
            try:
                reply.result = action()
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                reply.fault = error
            self._idle.append(calls)
            reply.is_there.set()
            del found, action, reply  # they may be large

    def close(self) -> None:
        """End the threads that have nothing to do."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)


class _Exchange:
    """An exchange whose methods are called by `Calls`."""

    def __init__(self, exchange: Exchange, calls: Calls) -> None:
        self._exchange, self._calls = exchange, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._exchange, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._calls.call(lambda: found(*args, **kwargs))


def through(calls: Calls, exchange: Exchange) -> Exchange:
    """Return an exchange whose calls are made by `Calls`."""
    return cast("Exchange", _Exchange(exchange, calls))
