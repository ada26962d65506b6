"""A request whose job was submitted, or is about to be."""

from __future__ import annotations

import time

from alcore.protocols import Request
from alcore_labelers.schedulers import Job


class Flight:
    """A request in flight.

    Parameters
    ----------
    request
        What is to be answered.
    job
        Its job.
    handle
        By which the scheduler knows the job; None as long as that is not known to be submitted.

    Attributes
    ----------
    is_known : bool
        Whether a later driver can find out what has become of it, so that the request may be given back.
    is_lost : bool
        Whether it has started, and the scheduler doesn't know it any more.
    """

    def __init__(self, request: Request, job: Job, handle: str | None) -> None:
        self.request, self.job, self.handle = request, job, handle
        self.is_known = self.is_lost = False
        self._due = 0.0
        self._begin: float | None = None
        self._end: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether the scheduler may be asked again whether it knows the job."""
        return not self.is_lost and time.monotonic() >= self._due

    def try_later(self, seconds: float) -> None:
        """Ask the scheduler again after this time."""
        self._due = time.monotonic() + seconds

    @property
    def is_ending(self) -> bool:
        """Whether the job is over, and its files may still be on their way."""
        return self._end is not None

    def is_there(self) -> None:
        """Note that the scheduler knows the job, and that it is not over, also where it seemed to be."""
        self._end = None

    def seconds_at_work(self, *, begun: bool) -> float:
        """Return for how long this driver has seen the job at work, by a clock that nobody sets."""
        now = time.monotonic()
        if begun and self._begin is None:
            self._begin = now
        return 0.0 if self._begin is None else now - self._begin

    def seconds_since_end(self) -> float:
        """Return for how long the job has been over, since this was asked first."""
        now = time.monotonic()
        self._end = now if self._end is None else self._end
        return now - self._end
