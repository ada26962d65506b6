"""Calls of an exchange that hang: nobody waits for them where a worker ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from alcore_worker.exchange import AwayError

_LONGEST = 3.0  # seconds that a call may take where the worker ends
_LOOK = 0.2  # seconds between two looks whether it does


class _ThreadCall(threading.Thread):
    """A call in a thread of its own; what it came to stays here where the caller is interrupted while it looks."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__(name="exchange", daemon=True)
        self._action = action
        self.is_done = threading.Event()
        self.result: Any = None
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Make the call."""
        try:
            self.result = self._action()
        except BaseException as error:  # noqa: BLE001 - raised where it was called
            self.fault = error
        self.is_done.set()


class Calls:
    """Makes calls in threads of its own, so that a caller can leave one that hangs, be it in the kernel.

    A call takes as long as it takes, until the worker ends. Then it has `_LONGEST` seconds; after one that took longer,
    all others fail at once. A caller that is interrupted waits for its call likewise.

    Parameters
    ----------
    is_ending
        Says whether the worker ends.
    where
        What is called.
    """

    def __init__(self, is_ending: Callable[[], bool], where: str) -> None:
        self._is_ending, self._where = is_ending, where
        self._hangs = False

    def call(self, action: Callable[[], Any]) -> Any:
        """Return what a call returns, or raise what it raises; `AwayError` where it hangs, and the worker ends."""
        if self._hangs:
            raise self._late()
        call = _ThreadCall(action)
        interrupt: KeyboardInterrupt | None = None
        try:
            call.start()
        except KeyboardInterrupt as error:
            interrupt = error
        self._wait(call, interrupt)
        if call.fault is not None:
            raise call.fault
        return call.result

    def _wait(self, call: _ThreadCall, interrupt: KeyboardInterrupt | None) -> None:
        end: float | None = None
        while not call.is_done.is_set():
            try:
                call.is_done.wait(_LOOK)
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
