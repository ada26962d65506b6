"""Slurm as a scheduler of jobs: sbatch, squeue, scontrol and scancel; no accounting is needed."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence

from alcore.errors import UsageError
from alcore_labelers.scheduler_commands import Called, call, end_commands_with
from alcore_labelers.schedulers import Job, Known, SchedulerError, SchedulerFault, State

_COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
_WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT"
_RUNNING = "RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING EXPEDITING"
_STATES: dict[str, State] = {
    **dict.fromkeys(_WAITING.split(), "waiting"),
    **dict.fromkeys(_RUNNING.split(), "running"),
    "COMPLETED": "ended",
    "FAILED": "ended",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "CANCELLED": "cancelled",
    "PREEMPTED": "infrastructure",
    "NODE_FAIL": "infrastructure",
    "BOOT_FAIL": "infrastructure",
    "LAUNCH_FAILED": "infrastructure",
    "OUT_OF_MEMORY": "infrastructure",
    "REVOKED": "infrastructure",
}
_WORDS = {
    "TIMEOUT": "it ran into its limit of time",
    "DEADLINE": "it ran into its deadline",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "it was ended for a job that goes first",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "OUT_OF_MEMORY": "it ran out of memory",
}
_PASSING = re.compile(
    r"unable to contact|timed? ?out|connect|zero bytes|transport|temporar|try again|policy|communication"
    r"|slurmctld|socket|message (send|receive)|shutdown|authentication|can't find an address|name or service"
    r"|in standby|interrupted",
    re.IGNORECASE,
)
"""What Slurm's commands say where the same may work later."""
_LASTING = re.compile(r"time limit is invalid", re.IGNORECASE)
"""What they say beside that where it never will."""
_OURS = {"--job-name": "-J", "--array": "-a", "--clusters": "-M"}
"""Options by which jobs would not be found again."""


class SlurmJobs:
    """Submit jobs to Slurm.

    Parameters
    ----------
    options
        Of ``sbatch``, such as ``["--partition=long", "--cpus-per-task=8"]``.
    interval
        Seconds between two polls.
    """

    finds = True

    def __init__(self, options: Sequence[str] = (), interval: float = 10.0) -> None:
        for option in options:
            _check_option(option)
        self.interval, self._options = interval, list(options)

    def check(self) -> None:
        """Raise `UsageError` if Slurm's commands are not there."""
        if missing := [name for name in _COMMANDS if shutil.which(name) is None]:
            raise UsageError(
                f"the scheduler 'slurm' calls {missing[0]}, which is not on the PATH; run alcore where Slurm's "
                "commands are, a login node for instance."
            )

    def submit(self, job: Job) -> str:
        """Submit a job; its handle is its number."""
        limit = [] if job.time_limit is None else [f"--time={math.ceil(job.time_limit / 60) + 1}"]
        done = call(
            [
                "sbatch",
                "--parsable",
                _named(job),
                f"--chdir={job.folder}",
                f"--output={job.folder / 'job.log'}",
                "--no-requeue",
                *limit,
                *self._options,
                str(job.script),
            ]
        )
        if done.code:
            raise _fault("sbatch", done)
        number = done.out.strip().splitlines()[-1].split(";")[0] if done.out.strip() else ""
        if not number.isdigit():
            raise SchedulerFault(f"sbatch gave {done.out.strip()!r:.100}, which is not the number of a job")
        return number

    def find(self, job: Job) -> str | None:
        """Return the number of a job by its name; Slurm forgets jobs that are over after a while (MinJobAge)."""
        end_commands_with(_named(job))
        found = [(state, number) for number, name, state, _ in self._jobs() if name == job.name]
        found.sort(key=lambda one: _STATES.get(one[0]) not in ("waiting", "running"))
        return found[0][1] if found else None

    def poll(self, jobs: Mapping[str, Job]) -> dict[str, Known]:
        """Return what Slurm knows of jobs; one call whatever their number."""
        known = {}
        for number, name, word, reason in self._jobs():
            if number in jobs and name == jobs[number].name:  # a controller that lost its state gives numbers again
                why = "" if reason in ("None", "NonZeroExitCode", "") else f" ({reason})"
                known[number] = Known(_STATES.get(word, "running"), f"{_WORDS.get(word, word)}{why}")
        return known

    def fetch(self, job: Job, handle: str) -> None:
        """Do nothing: the nodes share the folder."""

    def cancel(self, jobs: Mapping[str, Job]) -> None:
        """End jobs."""
        if jobs:
            call(["scancel", "--quiet", *jobs])

    def _jobs(self) -> list[tuple[str, str, str, str]]:
        """Return number, name, state and reason of all jobs of this user."""
        done = call(["squeue", "--me", "--states=all", "--noheader", "--format=%i|%j|%T|%r"])
        if done.code:
            raise _fault("squeue", done)
        found = []
        for line in done.out.splitlines():
            if line.count("|") >= 3:
                number, name, state, reason = line.strip().split("|", 3)
                found.append((number, name, state, reason))
        return found


def _named(job: Job) -> str:
    return f"--job-name={job.name}"


def _check_option(option: str) -> None:
    """Refuse an option of sbatch, perhaps abbreviated, by which a job would not be found again."""
    name = option.split("=")[0]
    for long, short in _OURS.items():
        if (name.startswith("--") and long.startswith(name)) or option.startswith(short):
            raise UsageError(
                f"options has {option!r}, and jobs are found by the name and number that alcore knows: leave {long} "
                "out. Each request is a job of its own; another cluster is chosen by the variable SLURM_CLUSTERS."
            )


def _fault(command: str, done: Called) -> Exception:
    said = done.err.splitlines()[-1] if done.err else f"exit code {done.code}"
    passes = _PASSING.search(done.err) and not _LASTING.search(done.err)
    if passes or (command == "squeue" and "option" not in done.err):
        return SchedulerFault(f"{command}: {said}")
    return SchedulerError(f"{command} refused: {' '.join(done.err.split()) or said}.")
