"""How the command ends at SIGINT and SIGTERM, from its entry to the end of the process.

The signal ends the process at once while the command imports modules, loads plugins and reads its arguments: a
`KeyboardInterrupt` there could be swallowed or turned into another error by the code that it meets, and would leave
modules half imported. Inside a sub-command it is raised, so that the sub-command can clean up. Parts that handle the
signals themselves, such as a run, replace these handlers for as long as they last.

Importing this module imports nothing but the standard library, since a signal that comes before it ends the process
in Python's own way.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, MethodType
from typing import Any

from alcore.commands.exits import INTERRUPTED, end_at_once
from alcore.commands.messages import say
from alcore.errors import is_importing

_SOON = 0.02  # seconds


class SignalHandling:
    """The handlers of SIGINT and SIGTERM of the whole process.

    Attributes
    ----------
    asked : bool
        Whether one of the signals came to these handlers; it stays so where the `KeyboardInterrupt` was swallowed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._code: int | None = None
        self._report_unraisable = sys.unraisablehook

    def install(self) -> None:
        """Handle the signals from now on; does nothing outside the main thread, where Python handles none."""
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGINT, self.handle)
        atexit.register(self._ignore)  # the first that is registered is called last
        sys.unraisablehook = self._deliver_again
        _reset_in_children()
        signal.signal(signal.SIGTERM, self.handle)

    def settle(self, code: int) -> None:
        """Let a signal that comes from now on end the process with its own exit code, since all is done and said."""
        self._code = code

    def handle(self, number: int, frame: FrameType | None) -> None:
        """End the process, or raise `KeyboardInterrupt` inside a sub-command."""
        del number
        if self._code is not None:
            os._exit(self._code)
        self.asked = True
        if not _in_command(frame):
            end_at_once("interrupted.")
        raise KeyboardInterrupt

    def _deliver_again(self, unraisable: Any) -> None:
        """Send the signal again where the `KeyboardInterrupt` met a finalizer, which can't pass it on."""
        if not (self.asked and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            self._report_unraisable(unraisable)
        elif sys.platform != "win32":  # which can't send a signal to a thread
            # soon, since what is raised in this hook is dropped too
            again = threading.Timer(_SOON, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
            again.daemon = True
            again.start()

    def _ignore(self) -> None:
        """Ignore the signals while Python takes itself down: their handlers would be the system's, which kill."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) == self.handle:
                signal.signal(number, signal.SIG_IGN)


def interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a sub-command in which a signal raises `KeyboardInterrupt`, and that reports it.

    typer would end without a word.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return _call(command, *args, **kwargs)
        except KeyboardInterrupt:
            say("interrupted.", on_every_rank=True)
            sys.exit(INTERRUPTED)

    return wrapper


def _call(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a sub-command; the frame of this function is what `_in_command` looks for."""
    return command(*args, **kwargs)


def _in_command(frame: FrameType | None) -> bool:
    """Return whether a `KeyboardInterrupt` that is raised in a frame comes to `interruptible`, and as what it is."""
    if is_importing(frame):
        return False
    while frame is not None and frame.f_code is not _call.__code__:
        frame = frame.f_back
    return frame is not None


@functools.cache
def _reset_in_children() -> None:
    """Give processes that are forked from this one the usual handlers, so that `terminate` ends them."""
    if sys.platform != "win32":  # which has no fork
        os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        handler = signal.getsignal(number)
        if isinstance(handler, MethodType) and isinstance(handler.__self__, SignalHandling):
            signal.signal(number, usual)
