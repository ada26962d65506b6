"""The log of one run: a file in its directory, and warnings on stderr for those who set up no logging."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_logger(run_id: str) -> logging.Logger:
    """Return a logger of this run alone; what it logs also reaches the handlers of the logger ``alcore``."""
    logger = logging.Logger(f"alcore.run.{run_id}", logging.INFO)
    logger.parent = logging.getLogger("alcore")
    return logger


class RunLog:
    """Writes what a run's logger says to a file, until it is closed.

    Parameters
    ----------
    logger
        Of the run.
    path
        The file, which is appended to.
    replaying
        Tells whether the step under way was run before; its lines are marked then.
    """

    def __init__(self, logger: logging.Logger, path: Path, replaying: Callable[[], bool]) -> None:
        self._logger = logger
        self._file = _File(path, encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(_Formatter(replaying))
        logger.addHandler(self._file)
        if not logging.getLogger("alcore").hasHandlers():  # nobody listens, so warnings go to stderr
            logger.addHandler(_Warnings())

    def close(self) -> None:
        """Let go of the file."""
        self._logger.handlers.clear()
        with contextlib.suppress(OSError):  # a full disk is told by the store, which needs it more
            self._file.close()


class _File(logging.FileHandler):
    """Loses a line that the disk doesn't take, rather than the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Warnings(logging.StreamHandler[Any]):
    """Writes warnings to stderr; errors are raised, so they need not be shown here too."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("alcore: %(levelname)s: %(message)s"))
        self.addFilter(lambda record: record.levelno < logging.ERROR)


class _Formatter(logging.Formatter):
    """Marks the lines of steps that were run before."""

    def __init__(self, replaying: Callable[[], bool]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._replaying = replaying

    def format(self, record: logging.LogRecord) -> str:
        return ("[replay] " if self._replaying() else "") + super().format(record)
