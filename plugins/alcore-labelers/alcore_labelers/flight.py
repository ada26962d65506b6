"""A request whose job was submitted, or is about to be."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

from alcore.errors import UsageError
from alcore.protocols import Request
from alcore.store import write_whole
from alcore_labelers.job_states import TRANSITIONS, JobChange, JobState
from alcore_labelers.program_files import FileFault, read_file
from alcore_labelers.schedulers import Job, Known

_LONGEST = 600.0  # seconds between two tries of what the scheduler did not do


class Backoff:
    """How long something has kept failing, and when it is tried again: after twice the time of the try before.

    Drivers that don't wait for their jobs each try once: so the time is kept in a file. Of the time between two drivers
    at most 10 minutes count, since nobody asked in it.

    Parameters
    ----------
    file
        Where the time is kept, in a folder that is there.

    Attributes
    ----------
    fault : str
        What it failed with last; empty where it did not.
    """

    def __init__(self, file: Path) -> None:
        self.fault = ""
        self._file, self._kept = file, 0.0
        self._since: float | None = None
        self._due = self._wait = self._before = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it may be tried, or tried again."""
        return time.monotonic() >= self._due

    @property
    def seconds(self) -> float:
        """For how long it has failed, each time; 0 where the last try succeeded."""
        return 0.0 if self._since is None else self._before + time.monotonic() - self._since

    def failed(self, fault: str, first: float) -> bool:
        """Note a failure, which is tried again after `first` seconds or more; return whether it is the first one."""
        now, is_new = time.monotonic(), self._since is None
        if self._since is None:
            self._since, self._before = now, self._read()
        self._wait = first if is_new else min(2 * self._wait, max(_LONGEST, first))
        self.fault, self._due = fault, now + self._wait
        if is_new or self.seconds > 1.1 * self._kept:
            self._kept = self.seconds
            with contextlib.suppress(OSError, UsageError):  # it is for later drivers alone
                write_whole(self._file, f"{self._kept} {time.time()}\n", durable=False)
        return is_new

    def succeeded(self, again: float = 0.0) -> bool:
        """Note a success, after which it is due in `again` seconds; return whether it had failed before."""
        had_failed = self._since is not None
        self.fault, self._since, self._wait, self._due = "", None, 0.0, time.monotonic() + again
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
        return had_failed

    def _read(self) -> float:
        """Return for how long drivers before this one saw it fail, and what counts of the time since."""
        try:
            kept, at = map(float, (read_file(self._file.parent, self._file.name, 100) or b"").split())
        except (FileFault, ValueError):
            return 0.0
        seconds = max(kept, 0.0) + min(max(time.time() - at, 0.0), _LONGEST)
        return seconds if math.isfinite(seconds) else 0.0


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
    heartbeat
        Seconds between two heartbeats of the job; 0 where it has none.

    Attributes
    ----------
    state : JobState
        What this driver knows of the job.
    backoff : Backoff
        With the scheduler, about this job alone: to submit it, to find it, to tell what has become of it.
    fetching, canceling : Backoff
        To bring its files, and to end it.
    said : Known or None
        What the scheduler said of it last; None where it did not know it, or was not asked yet.
    """

    def __init__(self, request: Request, job: Job, handle: str | None, heartbeat: float = 0.0) -> None:
        self.request, self.job, self.handle, self.heartbeat = request, job, handle, heartbeat
        self.state = JobState.PREPARED if handle is None else JobState.SUBMITTED
        attempt = job.folder.with_name(f".attempt-{request.attempt}")  # beside the folders, of which there may be more
        self.backoff, self.fetching, self.canceling = (
            Backoff(attempt.with_suffix(f".{what}")) for what in ("job", "fetch", "cancel")
        )
        self.said: Known | None = None
        self._worked = 0.0
        self._seen: float | None = None
        self._end: float | None = None
        self._exit: float | None = None
        self._moved = -math.inf
        self._last: object = self  # no heartbeat was looked at

    def change(self, change: JobChange) -> None:
        """Change the state of the job, as `TRANSITIONS` says."""
        self.state = TRANSITIONS[change][self.state]

    def identify(self, handle: str) -> None:
        """Note the handle of the job, by which the scheduler knows it."""
        self.change(JobChange.IDENTIFY)
        self.handle = handle
        self.backoff.succeeded()

    @property
    def is_ending(self) -> bool:
        """Whether the job is over, or seems to be, and its files, or a heartbeat, may still be on their way."""
        is_silent = self._end is not None and time.monotonic() - self._moved > 2 * self.heartbeat
        return is_silent or (self._exit is not None and not self.fetching.fault)

    def is_there(self) -> None:
        """Note that the job is not over, also where it seemed to be."""
        self._end = None

    def seconds_at_work(self, *, begun: bool, is_suspended: bool = False) -> float:
        """Return for how long this driver has seen the job at work, by a clock that nobody sets."""
        now = time.monotonic()
        if begun and not is_suspended and self._seen is not None:
            self._worked += now - self._seen
        self._seen = now if begun else None
        return self._worked

    def seconds_since_exit(self) -> float:
        """Return for how long this driver has known that the program has ended."""
        now = time.monotonic()
        self._exit = now if self._exit is None else self._exit
        return now - self._exit

    def seconds_silent(self, beat: object) -> float:
        """Return for how long the job has seemed to be over, without a heartbeat since: 0 where there is a new one.

        Parameters
        ----------
        beat
            Its last heartbeat, which is compared with the one that was given before. The first one is compared with
            nothing: the job may be dead for days.
        """
        now, before = time.monotonic(), self._last
        self._last = beat
        if before is not self and beat != before:
            self._end, self._moved = None, now
            return 0.0
        self._end = now if self._end is None else self._end
        return now - self._end
