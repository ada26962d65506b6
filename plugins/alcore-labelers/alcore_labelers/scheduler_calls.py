"""Calls a scheduler, and calls again later where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from alcore_labelers.flight import Backoff, Flight
from alcore_labelers.schedulers import Job, Jobs, Known, SchedulerError, SchedulerFault

FAULTS = (SchedulerFault, SchedulerError, OSError)
"""What all calls but `submit`, which may refuse a job, fail with for a while."""
Asked = Literal["submit", "find", "poll"]
"""What fails, or works again, for all jobs at once."""


class SchedulerCalls:
    """The calls of a scheduler; what fails is logged once, and waits twice as long each time.

    Parameters
    ----------
    jobs
        The scheduler.
    give_up_after
        Seconds after which what keeps failing is given up.
    work
        A folder, where the time is kept for which calls have failed.
    logger
        Told what fails, and that it works again.
    """

    def __init__(self, jobs: Jobs, give_up_after: float, work: Path, logger: logging.Logger) -> None:
        self._jobs, self._give_up_after, self._logger = jobs, give_up_after, logger
        asked: tuple[Asked, ...] = ("submit", "find", "poll")
        self._backoffs = {call: Backoff(work / f".{call}") for call in asked}

    @property
    def first_wait(self) -> float:
        """Seconds until what failed is tried again for the first time."""
        return max(self._jobs.interval, 0.2)

    def is_due(self, what: Asked) -> bool:
        """Return whether the scheduler may be asked for something now."""
        return self._backoffs[what].is_due

    def seconds_failing(self, what: Asked) -> float:
        """Return for how long a call has failed, each time; 0 where the last one succeeded."""
        return self._backoffs[what].seconds

    def failed(self, what: Asked, fault: Exception) -> None:
        """Note that the scheduler failed to do something; the first time that is logged, and then until it succeeds."""
        if self._backoffs[what].failed(str(fault), self.first_wait):
            self._logger.warning("%s; tried again later, jobs go on", str(fault).rstrip("."))

    def succeeded(self, what: Asked, again: float = 0.0) -> None:
        """Note that the scheduler did something, which is due again in so many seconds."""
        after = self._backoffs[what].seconds
        if self._backoffs[what].succeeded(again):
            self._logger.warning("the scheduler answers again, after %.3g s", after)

    def find(self, job: Job) -> str | None:
        """Return the handle of a job, by its name; None if there is none. A fault is noted, and raised."""
        try:
            handle = self._jobs.find(job)
        except FAULTS as fault:
            self.failed("find", fault)
            raise
        self.succeeded("find")
        return handle

    def poll(self, jobs: Mapping[str, Job]) -> Mapping[str, Known] | None:
        """Return what the scheduler knows of jobs: nothing, where it can't be asked for long; None for the moment."""
        if self.is_due("poll"):
            begin = time.monotonic()
            try:
                states = self._jobs.poll(jobs)
            except FAULTS as fault:
                self.failed("poll", fault)
            else:
                took = time.monotonic() - begin
                self.succeeded("poll", max(self._jobs.interval, 5 * took))  # more rarely where it takes long
                return states
        failing = self.seconds_failing("poll")
        return {} if failing and failing >= self._give_up_after else None

    def fetch(self, flight: Flight) -> bool:
        """Bring the files of a job; return whether they are there, or are not to be had."""
        if flight.handle is None:
            return True
        if not flight.fetching.is_due:
            return False
        try:
            self._jobs.fetch(flight.job, flight.handle)
        except FAULTS as fault:
            self._failed_for(flight.fetching, fault)
            return flight.fetching.seconds >= self._give_up_after
        flight.fetching.succeeded()
        return True

    def cancel(self, flight: Flight) -> bool:
        """End a job; return whether the scheduler took that."""
        if flight.handle is None or not flight.canceling.is_due:
            return False
        try:
            self._jobs.cancel({flight.handle: flight.job})
        except FAULTS as fault:
            self._failed_for(flight.canceling, fault)
            return False
        flight.canceling.succeeded()
        return True

    def _failed_for(self, backoff: Backoff, fault: Exception) -> None:
        """Note that the scheduler failed to do something for one job; the first time that is logged."""
        if backoff.failed(str(fault), self.first_wait):
            self._logger.warning("%s; tried again later", str(fault).rstrip("."))
