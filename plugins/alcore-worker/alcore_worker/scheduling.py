"""Which run of an exchange a worker serves, and for how long."""

from __future__ import annotations

import contextlib
import logging
import time

from alcore_worker.exchange import Exchange
from alcore_worker.names import DocumentError

_GONE_AFTER = 30.0  # seconds that a driver has to make its run known again
_ATTENDED_WITHIN = 60.0  # seconds in which a driver that waits for labels is heard of
_SLICE, _SLICE_OF_UNATTENDED = 60.0, 2.0  # seconds after which a worker looks whether another run waits
_LEFT_ALONE = 60.0  # seconds after which a run that could not be served is looked at again


class RunGoneError(Exception):
    """The exchange can be reached, and has lost the run that is worked for."""


class Scheduler:
    """Says in which order a worker serves the runs of an exchange.

    Parameters
    ----------
    exchange
        Where the runs are; its calls wait while it is away.
    logger
        Told which runs can't be served.
    """

    def __init__(self, exchange: Exchange, logger: logging.Logger) -> None:
        self._exchange, self._logger = exchange, logger
        self._left_alone: dict[str, float] = {}  # until when, of runs that can't be served
        self._told: set[str] = set()

    def order(self, last: str) -> list[str]:
        """Return the runs, those whose driver lives first, and of these the one after the last first."""
        runs = self._runs()
        attended = {run: self.is_attended(run) for run in runs} if len(runs) > 1 else dict.fromkeys(runs, True)
        return sorted(runs, key=lambda run: (not attended[run], run <= last, run))

    def _runs(self) -> list[str]:
        """Return the runs, but for those that could not be served a moment ago."""
        now = time.monotonic()
        runs = [run for run in self._exchange.runs() if now >= self._left_alone.get(run, 0.0)]
        faults = {run: self._exchange.fault_of(run) for run in runs}
        for run, fault in faults.items():
            if fault is not None:
                self.leave_alone(run, fault)
        return [run for run in runs if faults[run] is None]

    def leave_alone(self, run: str, fault: str) -> None:
        """Say once why a run can't be served, and look at it again after a while."""
        if run not in self._told:
            self._told.add(run)
            self._logger.warning("the run %s can't be served, and is left alone: %s", run, fault)
        self._left_alone[run] = time.monotonic() + _LEFT_ALONE

    def is_attended(self, run: str) -> bool:
        """Return whether the driver of a run lives."""
        return self._exchange.is_attended(run, _ATTENDED_WITHIN)

    def others_wait(self, run: str) -> bool:
        """Return whether another run waits whose driver lives."""
        others = [other for other in self._runs() if other != run and self.is_attended(other)]
        with contextlib.suppress(DocumentError):  # one that can't be served, which is told when it is to be served
            return any(self._exchange.waiting(other) for other in others)
        return True


class TimeSlice:
    """Ends the work for a run where another one waits, after some time, or soon if the run's driver doesn't live.

    Parameters
    ----------
    scheduler
        Knows the other runs.
    run
        The run that is worked for.
    """

    def __init__(self, scheduler: Scheduler, run: str) -> None:
        self._scheduler, self._run = scheduler, run
        self._began = self._looked = time.monotonic()
        self._is_over = False

    def is_over(self) -> bool:
        """Return whether to end; asked before more is claimed."""
        now = time.monotonic()
        if not self._is_over and now - self._looked > _SLICE_OF_UNATTENDED:
            self._looked = now
            if now - self._began > _SLICE or not self._scheduler.is_attended(self._run):
                self._is_over = self._scheduler.others_wait(self._run)
        return self._is_over


class RunCheck:
    """Ends the work for a run that was removed from the exchange, or damaged: it would be waited for without end.

    Parameters
    ----------
    exchange, run
        What is looked for, and where.
    """

    def __init__(self, exchange: Exchange, run: str) -> None:
        self._exchange, self._run = exchange, run
        self._gone_since: float | None = None

    def check(self) -> None:
        """Raise where the exchange is there, and the run has not been whole for long.

        Raises
        ------
        AwayError
            If the exchange is away.
        RunGoneError
            If the run is not there.
        DocumentError
            If it can't be served.
        """
        is_there, fault = self._run in self._exchange.runs(), self._exchange.fault_of(self._run)
        if is_there and fault is None:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = time.monotonic()
        elif time.monotonic() - self._gone_since > _GONE_AFTER:
            raise RunGoneError if fault is None else DocumentError(fault)
