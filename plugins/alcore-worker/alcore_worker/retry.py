"""Calls of an exchange that is away for a while: they are made again until it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from alcore_worker.exchange import AwayError, FullError

T = TypeVar("T")
_LONGEST = 5.0  # seconds between two tries


class ExchangeRetry:
    """Makes calls again as long as the exchange is away.

    Parameters
    ----------
    logger
        Told when it is away, and when it is back.
    safe_point
        Called while this waits; it raises where nobody is to wait any more.
    again
        Called before a call is made again.
    """

    def __init__(
        self, logger: logging.Logger, safe_point: Callable[[], None], again: Callable[[], None] = lambda: None
    ) -> None:
        self._logger, self._safe_point, self._again = logger, safe_point, again

    def call(self, action: Callable[[], T], *, needs_room: bool = False) -> T:
        """Return what a call returns, whenever that is.

        Parameters
        ----------
        action
            The call.
        needs_room
            Whether to raise `FullError` where there is no room, and not to wait for it.
        """
        delay, told = 0.1, False
        while True:
            try:
                if told:
                    self._again()
                result = action()
            except AwayError as error:
                if needs_room and isinstance(error, FullError):
                    raise
                self._safe_point()
                if not told:
                    self._logger.warning("%s; waiting until it can be reached again", error)
                    told = True
                sleep(delay, self._safe_point)
                delay = min(2 * delay, _LONGEST)
                continue
            if told:
                self._logger.warning("the exchange can be reached again")
            return result


def sleep(seconds: float, safe_point: Callable[[], None]) -> None:
    """Wait, and look now and then whether to end."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        safe_point()
        time.sleep(min(left, 0.2))
    safe_point()
