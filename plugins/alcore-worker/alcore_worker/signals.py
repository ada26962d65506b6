"""SIGINT and SIGTERM end a worker."""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from alcore.errors import is_importing

_SOON = 0.02  # seconds until a signal is sent again


@contextlib.contextmanager
def ending_at_signals(end: Callable[[], bool], *, replace_handlers: bool) -> Iterator[None]:
    """Have SIGINT and SIGTERM raise `KeyboardInterrupt` in the main thread, as long as this lasts.

    Parameters
    ----------
    end
        Notes that the worker is to end; returns whether that was noted before. It must be safe in a signal handler.
    replace_handlers
        Whether to handle the signals also where the program has handlers of its own for them.
    """
    in_import = is_importing(inspect.currentframe())  # the whole program, and not only what the strategy does
    has_come = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal has_come
        del number
        has_come = True
        was_ending = end()  # first: threads of the strategy, which it waits for, may wait for the exchange
        # what is raised in an import may become another error there, which would be taken for a failed label
        if was_ending or in_import or not is_importing(frame):
            raise KeyboardInterrupt

    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        handlers = {signal_: signal.getsignal(signal_) for signal_ in usual}
        handlers = {
            signal_: handler for signal_, handler in handlers.items() if replace_handlers or handler == usual[signal_]
        }
    report = sys.unraisablehook

    def send_again(unraisable: Any) -> None:
        """Send the signal again where what it raised met a finalizer, which drops it: the strategy would go on."""
        if not (has_come and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            report(unraisable)
        else:  # soon, since what is raised in this hook is dropped too
            later = threading.Timer(_SOON, signal.pthread_kill, (threading.main_thread().ident, next(iter(handlers))))
            later.daemon = True
            later.start()

    sys.unraisablehook = send_again
    for signal_ in handlers:
        signal.signal(signal_, handle)
    try:
        yield
    finally:
        for signal_, handler in handlers.items():
            signal.signal(signal_, handler)
        sys.unraisablehook = report
