"""The log of one run: a file in its directory, and warnings on stderr for those who set up no logging."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_logger(run_id: str, level: int = logging.INFO) -> logging.Logger:
    """Return a logger of this run alone; what it logs also reaches the handlers of the logger ``alcore``."""
    logger = logging.Logger(f"alcore.run.{run_id}", level)
    logger.parent = logging.getLogger("alcore")
    return logger


class WarnOnce:
    """Logs each warning once.

    Parameters
    ----------
    logger
        Of the run.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged: set[str] = set()

    def __call__(self, message: str, *values: object) -> None:
        """Log a warning with these values in it, by ``%``, unless it was logged before, whatever its values were."""
        if message not in self._logged:
            self._logged.add(message)
            self._logger.warning(message, *values)


class RunLog:
    """Writes what a run's logger logs to a file, until it is closed.

    Parameters
    ----------
    logger
        Of the run.
    path
        The file, which is appended to.
    replaying
        Returns whether the step under way was run before; its lines are marked then.
    """

    def __init__(self, logger: logging.Logger, path: Path, replaying: Callable[[], bool]) -> None:
        self._logger = logger
        self._file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(_MarkingFormatter(replaying))
        logger.addHandler(self._file)
        if not logging.getLogger("alcore").hasHandlers():  # no handler is set up, so warnings go to stderr
            logger.addHandler(_StderrWarnings())

    def close(self) -> None:
        """Close the file."""
        self._logger.handlers.clear()
        with contextlib.suppress(OSError):  # a full disk is reported by the store, which needs it more
            self._file.close()


class _LogFile(logging.FileHandler):
    """A log file that drops a line which the disk refuses, so that the run goes on."""

    def _open(self) -> Any:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.baseFilename, flags, 0o644)
        return os.fdopen(descriptor, self.mode, encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _StderrWarnings(logging.StreamHandler[Any]):
    """Writes warnings to stderr; errors are raised, so they are not shown here too."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("alcore: %(levelname)s: %(message)s"))
        self.addFilter(lambda record: record.levelno < logging.ERROR)


class _MarkingFormatter(logging.Formatter):
    """Marks the lines of steps that were run before."""

    def __init__(self, replaying: Callable[[], bool]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._replaying = replaying

    def format(self, record: logging.LogRecord) -> str:
        return ("[replay] " if self._replaying() else "") + super().format(record)
