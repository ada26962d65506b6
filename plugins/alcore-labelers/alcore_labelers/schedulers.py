"""What a scheduler of jobs is to the strategy `jobs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from alcore.errors import AlcoreError

State = Literal["waiting", "running", "suspended", "ended", "infrastructure", "timeout", "cancelled"]
"""What a scheduler says of a job. ``"suspended"``: it has begun, and is stopped for now. ``"ended"``: by itself, its
folder says how. The last three: it was ended, by a machine that failed or was wanted for something else, by a limit of
time, by a person."""


class Job(NamedTuple):
    """A job: an attempt at a request.

    Parameters
    ----------
    name
        ``<request id>-<attempt>.<token>``, with a token of the run directory: no other job has it.
    folder
        In which it works.
    script
        What is run: a script for sh in that folder.
    time_limit
        Seconds after which it is ended; None for no limit.
    """

    name: str
    folder: Path
    script: Path
    time_limit: float | None


class Known(NamedTuple):
    """What a scheduler says of a job.

    Parameters
    ----------
    state
        What has become of it.
    reason
        Why, in words.
    fault
        Why the scheduler can't say more now; `state` is a guess then.
    warning
        What a person should know of the job, after "job 7 ...": that it waits for somebody, for instance.
    """

    state: State
    reason: str = ""
    fault: str = ""
    warning: str = ""


class SchedulerFault(Exception):  # noqa: N818
    """A scheduler can't be reached now, or says what is not understood; the same is tried again later."""


class NotSubmittedError(SchedulerFault):
    """A job was not submitted, and may be later; other than after a `SchedulerFault`, that is known."""


class SchedulerError(AlcoreError):
    """A scheduler refused a job, which was not submitted, and will do so again: its request fails."""


@runtime_checkable
class Jobs(Protocol):
    """A scheduler: takes jobs, and says what has become of them.

    All methods may raise `SchedulerFault`; an `OSError`, and a `SchedulerError` of another method than `submit`, count
    as one. A scheduler may also offer what `JobsOptions` lists.
    """

    interval: float
    """Seconds between two polls, at least."""

    finds: bool
    """Whether `find` knows all jobs that were submitted and are not over."""

    def check(self) -> None:
        """Raise `UsageError` if the scheduler can't be used here; called before anything is bought."""

    def submit(self, job: Job, /) -> str:
        """Submit a job, and return its handle: text by which the scheduler knows it.

        `SchedulerFault` means that it may have been submitted, as where a connection was lost; `NotSubmittedError`,
        that it surely was not, and is to be tried again; `SchedulerError`, that it was not, and never will be.
        """

    def find(self, job: Job, /) -> str | None:
        """Return the handle of a job that was submitted, by its name; None if there is none."""

    def poll(self, jobs: Mapping[str, Job], /) -> Mapping[str, Known]:
        """Return what is known of jobs, by handle; what the scheduler doesn't know, or no more, is left out."""

    def fetch(self, job: Job, handle: str, /) -> None:
        """Bring what a job has written to its folder, where that is another one on its machine."""

    def cancel(self, jobs: Mapping[str, Job], /) -> None:
        """End jobs, by handle; do nothing with those that are over.

        A fault means that a job may not end, and is asked to again.
        """


class JobsOptions(Protocol):
    """What a scheduler may also offer."""

    id_variable: str
    """The variable in which it tells a job its id, which is then its handle; empty where it is missing."""

    inquiry: str
    """A command for sh that prints what the scheduler says of a job; called in the job where that is sent SIGTERM."""

    sees_processes: bool
    """Whether it looks at the processes of jobs, so that it knows that one has ended; False where it is missing."""

    fetches: bool
    """Whether a job has another folder on its machine, of which `fetch` brings the files; False where it is missing.

    Then a job that waits is taken back only where `cancel` ends it: a file here would not keep it from beginning.
    """

    def understood(self, said: str, job: Job, handle: str, /) -> Known | None:
        """Return what was printed by `inquiry` as `poll` would have said it; None where that tells nothing."""
