"""Any scheduler, by commands of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alcore.errors import UsageError
from alcore_labelers.job_script import has_started
from alcore_labelers.scheduler_commands import call, call_submit, end_submit, may_pass
from alcore_labelers.schedulers import Job, Known, NotSubmittedError, SchedulerError, SchedulerFault, State
from alcore_labelers.template import CommandTemplate, check_names

_STATES: dict[str, State | None] = {
    **dict.fromkeys(("waiting", "pending", "queued"), "waiting"),
    "running": "running",
    "suspended": "suspended",
    **dict.fromkeys(("ended", "done", "completed", "failed"), "ended"),
    **dict.fromkeys(("infrastructure", "preempted", "node_fail"), "infrastructure"),
    "timeout": "timeout",
    **dict.fromkeys(("cancelled", "canceled"), "cancelled"),
    "unknown": None,
}
_LATER = 75  # the exit code of a command that may work later, EX_TEMPFAIL of sysexits.h
_CUT_OFF = frozenset({124, 130, 137, 143, 255})
"""Exit codes of timeout(1), of a shell that SIGINT, SIGKILL or SIGTERM cut off, of ssh whose connection broke."""
_LONGEST = 500  # characters of what a command says
_OF_A_JOB = ("name", "script", "folder", "time_limit")


class CommandJobs:
    """Submit jobs with commands of the user's, each a template as `CommandTemplate` has it.

    Parameters
    ----------
    submit
        Submits a job, and prints its handle as the last line. Placeholders: ``{name}``, ``{script}``, ``{folder}``,
        ``{time_limit}`` (seconds, empty without a limit). Exit code 0 means that it was submitted; 75, that it was
        not, and is to be tried again; another one, that the job is refused. Where it is ended by a signal, or its
        message or code is that of a time out or a connection, it is not known whether it was submitted.
    poll
        Prints what has become of the job ``{handle}``: waiting, running, suspended, ended, infrastructure, timeout,
        cancelled, or unknown. Another exit code than 0 means that it can't be told now.
    cancel
        Ends the job ``{handle}``; exit code 0 means that it is ended, or was over. Without it no job is ended.
    find
        Prints the handle of the job named ``{name}``, or nothing if there is none. Without it a request is in doubt
        where the driver was killed while it submitted its job.
    fetch
        Brings the files of a job to ``{folder}``, where its machine has another one.
    interval
        Seconds between two polls.
    time_limit
        Of the jobs, in seconds, for which `check` tries the templates; None without a limit.
    """

    def __init__(
        self,
        submit: str,
        poll: str,
        cancel: str = "",
        find: str = "",
        fetch: str = "",
        interval: float = 10.0,
        time_limit: float | None = None,
    ) -> None:
        given = {"submit": submit, "poll": poll, "cancel": cancel, "find": find, "fetch": fetch}
        for name in ("submit", "poll"):
            if not given[name]:
                raise UsageError(f"{name} is missing; the scheduler 'commands' needs the parameters submit and poll.")
        self._templates = {name: CommandTemplate(text, name) for name, text in given.items() if text}
        for name, template in self._templates.items():
            handle = () if name in ("submit", "find") else ("handle",)
            check_names(template.names, (*_OF_A_JOB, *handle), name)
        self.interval, self.finds, self.fetches = interval, bool(find), bool(fetch)
        self._time_limit = time_limit

    def check(self) -> None:
        """Raise `UsageError` if a program is not there, or a template can't be filled."""
        job = Job("name", Path("folder"), Path("folder/job.sh"), self._time_limit)
        for template in self._templates.values():
            template.check({**job._asdict(), "handle": "1"})
        self._templates = {name: template.with_paths(Path.cwd()) for name, template in self._templates.items()}

    def submit(self, job: Job) -> str:
        """Submit a job, and return the handle that the command prints."""
        code, out, err = call_submit(job.name, self._arguments("submit", job))
        if code:
            said = err or out.strip()
            text = f"the command submit failed with exit code {code}: {said[-_LONGEST:]}"
            if code == _LATER:
                raise NotSubmittedError(text)
            raise SchedulerFault(text) if code < 0 or code in _CUT_OFF or may_pass(said) else SchedulerError(text)
        lines = out.split("\n")
        handle = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not handle:
            raise SchedulerFault("the command submit printed no handle")
        return handle

    def find(self, job: Job) -> str | None:
        """Return the handle of a job by its name."""
        if not has_started(job.folder):  # else it may be the job itself
            end_submit(job.name)
        out = self._said("find", job)
        return next((line.strip() for line in reversed(out.split("\n")) if line.strip()), None)

    def poll(self, jobs: Mapping[str, Job]) -> dict[str, Known]:
        """Return what the command says of each job."""
        states: dict[str, Known] = {}
        faults: list[str] = []
        for handle, job in jobs.items():
            try:
                state = self._polled(job, handle)
            except SchedulerFault as fault:  # nothing is known of this one, and the others are asked
                faults.append(str(fault))
                state = Known("waiting", fault=str(fault))
            if state is not None:
                states[handle] = state
        if faults and len(faults) == len(jobs):
            raise SchedulerFault(faults[0])
        return states

    def _polled(self, job: Job, handle: str) -> Known | None:
        try:
            code, out, err = call(self._arguments("poll", job, handle))
        except SchedulerFault as fault:  # it takes too long, for this job perhaps
            raise SchedulerFault(f"the command poll failed for the job {handle}: {fault}") from fault
        if code:
            raise _failed(f"poll failed with exit code {code} for the job {handle}", err)
        word = (out.split() or ["unknown"])[0][:_LONGEST]
        if word.lower() not in _STATES:
            raise SchedulerFault(
                f"the command poll printed {word!r} for the job {handle}; it must print one of {', '.join(_STATES)}"
            )
        state = _STATES[word.lower()]
        return None if state is None else Known(state, " ".join(out.split())[:_LONGEST])

    def fetch(self, job: Job, handle: str) -> None:
        """Call the command that brings the files, if there is one."""
        if "fetch" in self._templates:
            self._said("fetch", job, handle)

    def cancel(self, jobs: Mapping[str, Job]) -> None:
        """Call the command that ends a job; it is a fault if there is none."""
        for handle, job in jobs.items():
            if "cancel" not in self._templates:
                raise SchedulerFault(f"the job {handle} can't be ended: there is no command cancel")
            self._said("cancel", job, handle, f" for the job {handle}")

    def _said(self, name: str, job: Job, handle: str | None = None, of: str = "") -> str:
        """Return what a command printed; `SchedulerFault` where it failed."""
        code, out, err = call(self._arguments(name, job, handle))
        if code:
            raise _failed(f"{name} failed with exit code {code}{of}", err)
        return out

    def _arguments(self, name: str, job: Job, handle: str | None = None) -> list[str]:
        values: dict[str, Any] = {**job._asdict(), **({} if handle is None else {"handle": handle})}
        return self._templates[name].arguments(values)


def _failed(what: str, said: str) -> SchedulerFault:
    return SchedulerFault(f"the command {what}: {said[-_LONGEST:]}")
