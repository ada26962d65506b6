"""Slurm as a scheduler of jobs: sbatch, squeue, scontrol and scancel; no accounting is needed."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alcore.errors import UsageError
from alcore_labelers.job_script import has_started, was_sent_term
from alcore_labelers.scheduler_commands import Called, call, call_submit, end_submit, may_pass
from alcore_labelers.schedulers import Job, Known, SchedulerError, SchedulerFault, State

_logger = logging.getLogger("alcore.labelers.slurm")
_COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
_WAITING = "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT"
_RUNNING = "RUNNING COMPLETING SIGNALING STAGE_OUT RESIZING EXPEDITING"
_STATES: dict[str, State] = {
    **dict.fromkeys(_WAITING.split(), "waiting"),
    **dict.fromkeys(_RUNNING.split(), "running"),
    **dict.fromkeys(("SUSPENDED", "STOPPED"), "suspended"),
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
_REFUSED = re.compile(
    r"\binvalid\b(?!.*(credential|authentication|protocol|message|response))|unrecognized|option|usage:"
    r"|not (permitted|allowed|authorized|supported)|permission denied|access denied"
    r"|node count specification|more processors|memory specification|not in group|too (large|big|long)"
    r"|required by task is not available|dependency problem|nodes not in this partition|duplicate generic resource"
    r"|no partition specified",
    re.IGNORECASE,
)
"""What sbatch says where the same job will never be taken; whatever else it says may pass."""
_NO_NODE = "node configuration is not available"
"""Said of a job that no node can run. ``--test-only`` says it too while nodes that could are drained or down."""
_STUCK = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|JobHeld(User|Admin)|DependencyNeverSatisfied|BadConstraints|launch failed.*"
    r"|Invalid(Account|QOS)|(Account|QOS)NotAllowed|.*MaxWallDurationPerJob.*|.*Max(Cpu|Node|Memory|GRES)PerJob.*"
    r"|ReservationDeleted|Reservation.*deleted.*",
    re.IGNORECASE,
)
"""Reasons of a job that waits which don't pass by themselves."""
_NOT_OURS = re.compile(r"SQUEUE_.*|SCANCEL_.*|SCONTROL_.*|SBATCH_(ARRAY_INX|JOB_NAME|WAIT)")
"""Variables that filter what Slurm's commands tell, change its form, or change what a job is."""
_OURS = {
    "--job-name": "-J",
    "--array": "-a",
    "--clusters": "-M",
    "--wait": "-W",
    "--test-only": "",
    "--wrap": "",
}
"""Options by which jobs would not be found again, or would be no jobs."""
_FIELD = re.compile(r"(\w+)=(\S*)")
_INQUIRY = 'timeout 10 scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null'


class SlurmJobs:
    """Submit jobs to Slurm.

    Parameters
    ----------
    options
        Of ``sbatch``, such as ``["--partition=long", "--cpus-per-task=8"]``.
    interval
        Seconds between two polls.
    time_limit
        Of the jobs, in seconds, with which `check` asks Slurm; None without a limit.
    """

    finds = True
    id_variable = "SLURM_JOB_ID"
    inquiry = _INQUIRY

    def __init__(self, options: Sequence[str] = (), interval: float = 10.0, time_limit: float | None = None) -> None:
        for option in options:
            _check_option(option)
        self.interval, self._options, self._time_limit = interval, list(options), time_limit

    def check(self) -> None:
        """Raise `UsageError` if Slurm's commands are not there, or Slurm refuses the options."""
        if missing := [name for name in _COMMANDS if shutil.which(name) is None]:
            raise UsageError(
                f"the scheduler 'slurm' calls {missing[0]}, which is not on the PATH; run alcore where Slurm's "
                "commands are, a login node for instance."
            )
        if (other := os.environ.get("SBATCH_CLUSTERS")) and os.environ.get("SLURM_CLUSTERS") != other:
            raise UsageError(
                f"the variable SBATCH_CLUSTERS is {other!r}, so that jobs would be submitted to a cluster that is not "
                "asked for them; set SLURM_CLUSTERS, which all of Slurm's commands read, in its place."
            )
        with contextlib.suppress(SchedulerFault):  # it can't be reached now, which may be otherwise at the first job
            done = _call(["sbatch", "--test-only", *_limited(self._time_limit), *self._options, "--wrap=true"])
            if done.code and _NO_NODE in done.err:
                _logger.warning("sbatch says %r: no node can run such jobs now, and perhaps none ever can", _said(done))
            elif done.code and isinstance(fault := _fault("sbatch", done), SchedulerError):
                limit = "" if self._time_limit is None else f", or time_limit, which is {self._time_limit:g} seconds"
                raise UsageError(f"{fault} Mend the parameter options{_given(self._options)}{limit}.")

    def submit(self, job: Job) -> str:
        """Submit a job; its handle is its number."""
        done = call_submit(
            job.name,
            [
                "sbatch",
                "--parsable",
                _named(job),
                f"--chdir={job.folder}",
                f"--output={job.folder / 'job.log'}",
                "--no-requeue",
                *_limited(job.time_limit),
                *self._options,
                str(job.script),
            ],
            _env(),
        )
        if done.code:
            raise _fault("sbatch", done)
        number = done.out.strip().splitlines()[-1].split(";")[0] if done.out.strip() else ""
        if not number.isdigit():
            raise SchedulerFault(f"sbatch gave {done.out.strip()!r:.100}, which is not the number of a job")
        return number

    def find(self, job: Job) -> str | None:
        """Return the number of a job by its name; Slurm forgets jobs that are over after a while (MinJobAge)."""
        end_submit(job.name)
        jobs = [(state, number) for number, name, state, _, _ in self._jobs([job]) if name == job.name]
        jobs.sort(key=lambda entry: _STATES.get(entry[0]) not in ("waiting", "running"))
        return jobs[0][1] if jobs else None

    def poll(self, jobs: Mapping[str, Job]) -> dict[str, Known]:
        """Return what Slurm knows of jobs; one call whatever their number.

        A job that may not be queued again is cancelled by its node if that can't start it, and by a controller that
        has lost its state if it doesn't know the job; both are told from ``scancel``, which sends SIGTERM first, by
        what the job itself wrote.
        """
        states = {}
        for number, name, word, nodes, reason in self._jobs(jobs.values()):
            if number in jobs and name == jobs[number].name:  # a controller that lost its state gives numbers again
                states[number] = _known(word, reason)
                if word == "CANCELLED" and nodes and (why := _not_by_hand(jobs[number].folder)):
                    states[number] = Known("infrastructure", f"it was cancelled: its node {nodes} {why}")
        return states

    def understood(self, said: str, job: Job, handle: str) -> Known | None:
        """Return what ``scontrol show job`` told a job that was sent SIGTERM, as a state.

        It is ``COMPLETING`` then, for whatever reason: preemption has a time, as has the limit.
        """
        fields = dict(_FIELD.findall(said))
        if (fields.get("JobName"), fields.get("JobId")) != (job.name, handle):
            return None
        state = fields.get("JobState", "")
        if state == "COMPLETING":
            limit, worked = _seconds(fields.get("TimeLimit", "")), _seconds(fields.get("RunTime", ""))
            if fields.get("PreemptTime", "None") not in ("None", "Unknown", "N/A"):
                state = "PREEMPTED"
            else:
                state = "CANCELLED" if limit is None or worked is None or worked < limit else "TIMEOUT"
        return _known(state, "") if _STATES.get(state) in ("timeout", "cancelled", "infrastructure") else None

    def fetch(self, job: Job, handle: str) -> None:
        """Do nothing: the nodes share the folder."""

    def cancel(self, jobs: Mapping[str, Job]) -> None:
        """End jobs, each by its number and its name."""
        for number, job in jobs.items():
            done = _call(["scancel", f"--name={job.name}", number])
            if done.code and "invalid job id" not in done.err.casefold():  # it is over, and forgotten
                raise SchedulerFault(f"scancel: {_said(done)}")

    def _jobs(self, wanted: Iterable[Job]) -> list[tuple[str, str, str, str, str]]:
        """Return number, name, state, nodes and reason of all jobs of those who own the folders, and of this user."""
        users = {os.getuid()}
        for folder in {job.folder for job in wanted}:
            with contextlib.suppress(OSError):
                users.add(folder.stat().st_uid)
        owners = ",".join(map(str, sorted(users)))
        done = _call(["squeue", f"--user={owners}", "--states=all", "--noheader", "--format=%i|%j|%T|%N|%r"])
        if done.code:
            raise SchedulerFault(f"squeue: {_said(done)}")
        rows = []
        for line in done.out.splitlines():
            if line.count("|") >= 4:
                number, name, state, nodes, reason = line.strip().split("|", 4)
                rows.append((number, name, state, nodes, reason))
        return rows


def _call(arguments: Sequence[str]) -> Called:
    """Call a command of Slurm, without the variables that would change what it does or tells."""
    return call(arguments, env=_env())


def _env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not _NOT_OURS.fullmatch(name)}


def _limited(seconds: float | None) -> list[str]:
    """Return the option that gives a limit to Slurm, which knows minutes.

    There is no margin: a partition has a limit too, and a job that is above that waits for ever.
    """
    return [] if seconds is None else [f"--time={math.ceil(seconds / 60)}"]


def _not_by_hand(folder: Path) -> str:
    """Return why a job was cancelled by Slurm itself; empty where that was ``scancel``."""
    if not has_started(folder):
        return "could not start it"
    return "" if was_sent_term(folder) else "ended it without SIGTERM"


def _named(job: Job) -> str:
    return f"--job-name={job.name}"


def _known(word: str, reason: str) -> Known:
    why = "" if reason in ("None", "NonZeroExitCode", "") else f" ({reason})"
    state = _STATES.get(word, "running")
    is_stuck = state == "waiting" and _STUCK.fullmatch(reason)
    warning = f"waits, and will not start by itself: Slurm says {reason}" if is_stuck else ""
    return Known(state, f"{_WORDS.get(word, word)}{why}", warning=warning)


def _seconds(text: str) -> int | None:
    """Return a duration as Slurm writes it, ``[days-]hours:minutes:seconds``; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_option(option: str) -> None:
    """Refuse an option of sbatch, perhaps abbreviated, by which a job would not be found again."""
    name = option.split("=")[0]
    for long, short in _OURS.items():
        if (name.startswith("--") and long.startswith(name)) or (short and option.startswith(short)):
            raise UsageError(
                f"options has {option!r}, and jobs are found by the name and number that alcore knows: leave {long} "
                "out. Each request is a job of its own; another cluster is chosen by the variable SLURM_CLUSTERS."
            )


def _given(options: Sequence[str]) -> str:
    return f", which is {list(options)}" if options else ", or the variables SBATCH_..."


def _said(done: Called) -> str:
    return done.err.splitlines()[-1] if done.err else f"exit code {done.code}"


def _fault(command: str, done: Called) -> SchedulerFault | SchedulerError:
    """Return what a failed submission comes to: refused for good, or, whatever it is, something that may pass."""
    lasts = _NO_NODE in done.err or (
        _REFUSED.search(done.err) and (not may_pass(done.err) or "time limit is invalid" in done.err)
    )
    if not lasts:
        return SchedulerFault(f"{command}: {_said(done)}")
    return SchedulerError(f"{command} refused: {' '.join(done.err.split())}.")
