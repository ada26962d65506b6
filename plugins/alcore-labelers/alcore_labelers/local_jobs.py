"""A scheduler of processes on this machine that outlive the driver."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from alcore.errors import UsageError
from alcore_labelers.job_script import has_started, start_of
from alcore_labelers.programs import end_processes, running_in
from alcore_labelers.schedulers import Job, Known, NotSubmittedError, SchedulerFault

_FORK = 0.3  # seconds in which a process that was forked has its own environment
_START = 30.0  # seconds in which a process that was started must have made its marker


class LocalJobs:
    """Start jobs as processes of this machine, in sessions of their own, so that they go on when the driver ends.

    A job is known by its folder, which each of its processes has in its environment (``ALCORE_FOLDER``). The handle is
    the name of the job. How many run at the same time is the strategy's `max_in_flight`.

    Parameters
    ----------
    interval
        Seconds between two looks at what is running.
    """

    finds = sees_processes = True

    def __init__(self, interval: float = 0.05) -> None:
        self.interval = interval

    def check(self) -> None:
        """Raise `UsageError` where the system has no ``/proc``, which tells what is running, or no setsid(1)."""
        if not Path("/proc/self/environ").exists():
            raise UsageError("the scheduler 'local' needs Linux, whose /proc tells which jobs are running.")
        if shutil.which("setsid") is None:
            raise UsageError("the scheduler 'local' starts jobs with setsid, which is not on the PATH (util-linux).")

    def submit(self, job: Job) -> str:
        """Start a job."""
        try:
            starter = subprocess.run(
                ["setsid", "--fork", "sh", str(job.script)],
                env={**os.environ, "ALCORE_FOLDER": str(job.folder)},
                cwd=job.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except OSError as error:
            raise NotSubmittedError(f"a job can't be started: {error}") from error
        if starter.returncode < 0:
            raise SchedulerFault(f"the start of job {job.name} was ended by signal {-starter.returncode}")
        if starter.returncode:
            raise NotSubmittedError(f"a job can't be started: setsid ended with exit code {starter.returncode}")
        self._wait_for_start(job, _START)
        return job.name

    def find(self, job: Job) -> str | None:
        """Return the name of a job that has started, or is about to."""
        for pause in (0.0, _FORK):  # what a driver forked that was killed then may not be itself yet
            time.sleep(pause)
            if has_started(job.folder):
                return job.name
            if running_in([job.folder]):
                self._wait_for_start(job, _START)
                return job.name
        return None

    def poll(self, jobs: Mapping[str, Job]) -> dict[str, Known]:
        """Return which jobs are running, and which have ended.

        Those that began on another machine count as running, with a fault, as only their heartbeats tell.
        """
        running = running_in(job.folder for job in jobs.values())
        return {handle: self._known(job, job.folder in running) for handle, job in jobs.items()}

    def _known(self, job: Job, is_running: bool) -> Known:
        host, here = start_of(job.folder).host, socket.gethostname()
        if is_running or host in ("", here):
            return Known("running" if is_running else "ended")
        return Known(
            "running",
            fault=f"job {job.name} began on the machine {host}, and this is {here}, which can't tell what has become "
            "of it: resume the run there. If that machine is gone, give the request up by telling its status, "
            "infrastructure",
        )

    def fetch(self, job: Job, handle: str) -> None:
        """Do nothing: the files are here."""

    def cancel(self, jobs: Mapping[str, Job]) -> None:
        """End the processes of jobs."""
        for job in jobs.values():
            end_processes(job.folder)

    def _wait_for_start(self, job: Job, seconds: float) -> None:
        begin = time.monotonic()
        while not has_started(job.folder):
            waited = time.monotonic() - begin
            gone = waited > _FORK and not running_in([job.folder]) and not has_started(job.folder)
            if gone or waited > seconds:
                raise SchedulerFault(f"job {job.name} was started, and did not begin to work")
            time.sleep(0.005 if waited < _FORK else 0.05)
