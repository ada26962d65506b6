"""Calls of an exchange that hang: nobody waits for them where a worker ends."""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from alcore_worker.exchange import AwayError, Exchange

_LONGEST = 3.0  # seconds that a call may take where the worker ends
_LOOK = 0.2  # seconds between two looks whether it does

_Reply = queue.SimpleQueue[tuple[Any, BaseException | None]]
_Calls = queue.SimpleQueue[tuple[Callable[[], Any], _Reply] | None]


class Calls:
    """Makes calls in threads of its own, so that a caller can leave one that hangs, be it in the kernel.

    A call takes as long as it takes, until the worker ends. Then it has `_LONGEST` seconds; after one that took longer,
    all others fail at once. A caller that is interrupted waits for its call likewise.

    Parameters
    ----------
    ended
        Set where the worker ends.
    where
        What is called.
    """

    def __init__(self, ended: threading.Event, where: str) -> None:
        self._ended, self._where = ended, where
        self._idle: collections.deque[_Calls] = collections.deque()  # of threads that have nothing to do
        self._hangs = False

    def call(self, action: Callable[[], Any]) -> Any:
        """Return what a call returns, or raise what it raises; `AwayError` where it hangs, and the worker ends."""
        if self._hangs:
            raise self._late()
        reply: _Reply = queue.SimpleQueue()
        try:
            calls = self._idle.pop()
        except IndexError:
            calls = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(calls,), name="exchange", daemon=True).start()
        calls.put((action, reply))
        result, fault = self._wait(reply)
        if fault is not None:
            raise fault
        return result

    def _wait(self, reply: _Reply) -> tuple[Any, BaseException | None]:
        end: float | None = None
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                found = reply.get(timeout=_LOOK)
                return found if interrupt is None else (None, interrupt)
            except queue.Empty:
                pass
            except KeyboardInterrupt as error:  # the call ends first: what it claims is then given back at the end
                if interrupt is not None:
                    raise
                interrupt = error
            if interrupt is not None or self._ended.is_set():
                end = end or time.monotonic() + _LONGEST
                if time.monotonic() > end:
                    self._hangs = True
                    return None, interrupt or self._late()

    def _late(self) -> AwayError:
        return AwayError(f"{self._where}: it did not answer in {_LONGEST:g} s")

    def _work(self, calls: _Calls) -> None:
        while (found := calls.get()) is not None:
            action, reply = found
            try:
                answer: tuple[Any, BaseException | None] = action(), None
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                answer = None, error
            self._idle.append(calls)
            reply.put(answer)
            del found, action, reply, answer  # they may be large

    def close(self) -> None:
        """End the threads that have nothing to do."""
        while self._idle:
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
