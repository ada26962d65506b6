"""The label strategy whose programs are jobs: for hours and days, whatever becomes of the driver."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from alcore.errors import AlcoreError, UsageError, Waiting, check_choice
from alcore.protocols import Failed, FailureKind, LabelQueue, QueryQueue, Request
from alcore_labelers.attempts import Ended, Place, environment, request_files
from alcore_labelers.command_jobs import CommandJobs
from alcore_labelers.flight import Flight
from alcore_labelers.job_script import (
    SCRIPT,
    has_started,
    how_it_ended,
    job_script,
    seconds_worked,
)
from alcore_labelers.local_jobs import LocalJobs
from alcore_labelers.outcomes import Answer
from alcore_labelers.program_options import Cost, Keep, ProgramLabelStrategy, check_at_least
from alcore_labelers.programs import GRACE
from alcore_labelers.schedulers import Job, Jobs, Known, SchedulerError, SchedulerFault
from alcore_labelers.slurm_jobs import SlurmJobs

Scheduler = Literal["local", "slurm", "commands"]
_OVERDUE = 60.0  # seconds after its limit and the grace at which a job that nobody ended is ended by us
_FAILURES: dict[str, FailureKind] = {
    "infrastructure": "infrastructure",
    "timeout": "timeout",
    "cancelled": "withdrawn",
}


class JobsLabelStrategy(ProgramLabelStrategy):
    """Submit a job for each request, which goes on when the driver ends; a later one takes it up.

    A job runs the program as `command` does, in a folder of the run directory for each attempt, and never twice.

    Parameters
    ----------
    run
        The program and its arguments, such as ``./solver {T} {p}``, with values by name in braces; ``x0``, ``x1``, ...
        where the data names none. Others: ``{request}``, ``{sample}``, ``{attempt}``, ``{seed}``, ``{folder}``.
    scheduler
        ``local``: processes of this machine; ``slurm``; ``commands``: any other, by `submit`, `poll`, `cancel`, `find`
        and `fetch`.
    max_in_flight
        How many jobs are submitted, or run, at the same time.
    wait
        Whether to wait for the jobs; otherwise the run ends with exit code 3 while jobs are under way, and ``alcore
        resume`` looks for them.
    time_limit
        Seconds after which a job is ended; that is paid for. No limit if it is not given.
    poll_interval
        Seconds between two questions to the scheduler, at least; 10 if it is not given, and 0.05 for ``local``.
    options
        Of ``sbatch``, for instance ``["--partition=long"]``.
    submit
        Command that submits a job and prints its handle, with ``{name}``, ``{script}``, ``{folder}``, ``{time_limit}``.
    poll
        Command that prints what has become of ``{handle}``: waiting, running, ended, infrastructure, timeout,
        cancelled, unknown.
    cancel
        Command that ends the job ``{handle}``.
    find
        Command that prints the handle of the job named ``{name}``, if there is one.
    fetch
        Command that brings the files of a job to ``{folder}``, where its machine has another one.
    answer
        Where the answer is: ``result`` for ``result.json`` and ``result.npz``, ``stdout`` for the last line of stdout,
        ``auto`` for that line where neither file is there.
    infeasible_exits
        Exit codes with which the program says that the item has no label, for instance ``[3]``.
    keep
        ``all`` folders, or only those of ``failures``.
    env
        Variables for the program.
    max_result_bytes
        The most that is read of ``result.npz``.
    cost
        What an attempt costs if the program doesn't say: its ``seconds``, or what was ``expected`` of it.
    settle
        Seconds after the end of a job in which its files must appear; a network file system may be late.
    jobs
        In Python: an object with the methods of `Jobs`, in place of a scheduler.
    """

    told = False
    code_parameters = frozenset({"run", "env", "options", "submit", "poll", "cancel", "find", "fetch"})

    def __init__(
        self,
        run: str,
        scheduler: Scheduler = "local",
        max_in_flight: int = 1,
        wait: bool = True,
        time_limit: float | None = None,
        poll_interval: float | None = None,
        options: list[str] | None = None,
        submit: str = "",
        poll: str = "",
        cancel: str = "",
        find: str = "",
        fetch: str = "",
        answer: Answer = "auto",
        infeasible_exits: list[int] | None = None,
        keep: Keep = "all",
        env: dict[str, str] | None = None,
        max_result_bytes: int = 256 * 1024 * 1024,
        cost: Cost = "seconds",
        settle: float = 10.0,
        jobs: Jobs | None = None,
    ) -> None:
        where = "JobsLabelStrategy"
        super().__init__(run, answer, infeasible_exits, keep, cost, env, max_result_bytes, where)
        check_choice(where, "scheduler", scheduler, ("local", "slurm", "commands"))
        check_at_least(where, "max_in_flight", max_in_flight, 1)
        check_at_least(where, "settle", settle, 0)
        check_at_least(where, "poll_interval", poll_interval, 0)
        if time_limit is not None and not time_limit > 0:
            raise UsageError(f"{where}: time_limit is {time_limit}; it must be a number of seconds above 0.")
        commands = {"submit": submit, "poll": poll, "cancel": cancel, "find": find, "fetch": fetch}
        if scheduler != "commands" and (given := [name for name, text in commands.items() if text]):
            raise UsageError(f"{where}: {given[0]} is given, and only the scheduler 'commands' takes it.")
        if options and scheduler != "slurm":
            raise UsageError(f"{where}: options is given, and only the scheduler 'slurm' takes it.")
        if jobs is None:
            jobs = _scheduler(scheduler, options or [], commands, poll_interval)
        self.jobs, self.max_in_flight, self.wait = jobs, max_in_flight, wait
        self.time_limit, self.settle = time_limit, settle
        self.idempotent = jobs.finds  # then it is known of each request what has become of it
        self._handles: dict[str, str] = {}  # by job: a request that was given back may be handed out as it was
        self._faults: dict[str, float] = {}
        self._polled, self._token, self._command = 0.0, "", self.run

    def check(self) -> None:
        """Raise `UsageError` if the program or the scheduler is not there."""
        super().check()
        self.jobs.check()

    def is_in_doubt(self, request: Request) -> bool:
        """Tell whether a job may have been submitted of which nothing is known."""
        place = self.folders.find(request)
        if place is None or request.handle is not None:
            return False
        return not has_started(place.folder) and how_it_ended(place.folder, self.time_limit) is None

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Answer every request of the first queue in the second; jobs go on where this is interrupted.

        Raises
        ------
        alcore.errors.Waiting
            If jobs are under way, and it is not to wait for them.
        """
        self.read_shown()
        self._token, self._command = self.folders.token(), self._absolute()
        flights: dict[str, Flight] = {}
        try:
            self._take_up(queue_to_label, flights)
            while True:
                self._submit_next(queue_to_label, flights, serialize_queue)
                if not flights:
                    return
                answered = self._look(flights, serialize_queue)
                if not self.wait and not answered and not any(one.is_ending for one in flights.values()):
                    raise Waiting(_under_way(len(flights), queue_to_label.qsize()))
                if not answered:
                    self._pause()
        finally:
            _give_back(queue_to_label, [one.request for one in flights.values() if one.is_known])

    # -- what is under way -------------------------------------------------------------------------------------

    def _take_up(self, requests: QueryQueue, flights: dict[str, Flight]) -> None:
        """Find the requests whose jobs were submitted before, which are in flight; the others go back to the queue.

        Those are taken out one by one, since nothing is handed out any more where labels keep failing.
        """
        taken = requests.get_many(2**31 - 1)
        try:
            for request in taken:
                place = self.folders.find(request)
                if place is not None:
                    job = self._job(request, place.folder)
                    flight = Flight(request, job, request.handle or self._handles.get(job.name))
                    flight.is_known = True
                    flights[request.id] = flight
                    self.logger.info("job %s of request %s is taken up", flight.handle or job.name, request.id)
        finally:
            _give_back(requests, [one for one in taken if one.id not in flights])

    def _submit_next(self, requests: QueryQueue, flights: dict[str, Flight], answers: LabelQueue) -> None:
        """Submit as many jobs as there may be, those first of which it isn't known whether they were submitted."""
        for flight in [one for one in flights.values() if one.handle is None and one.is_due]:
            self._settle_doubt(flight, answers)
        while len(flights) < self.max_in_flight and (taken := requests.get_many(1)):
            try:
                flight = Flight(taken[0], self._prepare(taken[0]), None)
                flights[taken[0].id] = flight
            except UsageError as error:  # a value that the command can't be given
                answers.put(Failed(taken[0], str(error), cost=0.0))
                continue
            except BaseException:
                _give_back(requests, taken)
                raise
            self._submit(flight, answers)

    def _prepare(self, request: Request) -> Job:
        """Make the folder of an attempt."""
        (item,) = self.items([request])
        folder, seed = self.folders.prepare(request), self.seed(request)
        arguments = self._command.arguments(self.placeholders(item, seed, folder))
        env = environment(self.driver, folder, request, item.sample, seed) | self.env
        script = job_script(folder, arguments, env, self.time_limit, GRACE)
        self.folders.make(folder, {**request_files(self.driver, item, seed), SCRIPT: script}, executable=[SCRIPT])
        return self._job(request, folder)

    def _job(self, request: Request, folder: Path) -> Job:
        name = f"{request.id}-{folder.name.removeprefix('attempt-')}.{self._token}"
        return Job(name, folder, folder / SCRIPT, self.time_limit)

    def _settle_doubt(self, flight: Flight, answers: LabelQueue) -> None:
        """Find out whether a job was submitted; submit it if it was not."""
        if how_it_ended(flight.job.folder, self.time_limit) is not None:
            return  # `_look` takes the answer
        if not self.jobs.finds:
            if has_started(flight.job.folder):  # its files tell all that can be known
                self._warn(SchedulerFault(f"what has become of job {flight.job.name} is known when it has ended"))
                return
            flight.is_known = True  # the user has decided that it is asked again
            self._submit(flight, answers)
            return
        try:
            handle = self.jobs.find(flight.job)
        except SchedulerFault as fault:
            self._warn(fault)
            flight.try_later(max(self.jobs.interval, 1.0))
            return
        if handle is not None:
            self._commit(flight, handle, answers)
        elif has_started(flight.job.folder):
            flight.is_lost = True  # it is over, and the scheduler has forgotten it
        else:
            self._submit(flight, answers)

    def _submit(self, flight: Flight, answers: LabelQueue) -> None:
        flight.is_known = self.jobs.finds
        try:
            handle = self.jobs.submit(flight.job)
        except SchedulerError:
            flight.is_known = True
            if not self.jobs.finds:
                self.folders.discard(flight.job.folder)  # or it would count as submitted
            raise
        except SchedulerFault as fault:
            if not self.jobs.finds:
                raise AlcoreError(
                    f"{fault}, so it is not known whether the job {flight.job.name} was submitted, and the scheduler "
                    "has no command `find`. Look for the job, and go on with --in-doubt ask (submit it again) or "
                    "--in-doubt drop (give the request up)."
                ) from fault
            self._warn(fault)
            flight.try_later(max(self.jobs.interval, 1.0))
            return
        self._commit(flight, handle, answers)

    def _commit(self, flight: Flight, handle: str, answers: LabelQueue) -> None:
        answers.submitted(flight.request, handle)
        flight.handle, flight.is_known = handle, True
        self._handles[flight.job.name] = handle

    # -- what has become of it ---------------------------------------------------------------------------------

    def _look(self, flights: dict[str, Flight], answers: LabelQueue) -> int:
        """Deliver the answers of jobs that are over; return how many."""
        over = [one for one in flights.values() if self._ended_by_itself(one, answers)]
        left = {one.handle: one for one in flights.values() if one not in over and one.handle is not None}
        known: Mapping[str, Known] = {}
        self._polled = time.monotonic()
        try:
            known = self.jobs.poll({handle: one.job for handle, one in left.items()}) if left else {}
        except SchedulerFault as fault:
            self._warn(fault)
            left = {}
        over += [one for handle, one in left.items() if self._is_over(one, known.get(handle), answers)]
        over += [one for one in flights.values() if one.is_lost and one not in over and self._is_gone(one, answers)]
        for one in over:
            del flights[one.request.id]
        return len(over)

    def _ended_by_itself(self, flight: Flight, answers: LabelQueue) -> bool:
        """Deliver the answer of a job whose program has ended, unless a signal ended it: the scheduler knows why."""
        ended = how_it_ended(flight.job.folder, self.time_limit)
        if ended is None:
            return False
        if flight.handle is not None and ended.code is not None and ended.code < 0 and not ended.timed_out:
            return False
        self._deliver_ended(flight, ended, answers)
        return True

    def _is_over(self, flight: Flight, known: Known | None, answers: LabelQueue) -> bool:
        """Deliver the answer of a job that is over, as the scheduler says."""
        job = flight.job
        if known is not None and known.state in ("waiting", "running"):
            limit = self.time_limit
            if known.fault:
                self._warn(SchedulerFault(known.fault))
            working = flight.seconds_at_work(begun=has_started(job.folder))
            if limit is not None and working > limit + GRACE + _OVERDUE:
                self._cancel([flight])
                self._fail(flight, Known("timeout", f"it was ended, {_OVERDUE:g} s after its limit"), answers)
                return True
            flight.is_there()
            return False
        try:
            self.jobs.fetch(job, flight.handle or "")
        except SchedulerFault as fault:
            self._warn(fault)
            return False
        if known is not None and known.state in _FAILURES:
            ended = how_it_ended(job.folder, self.time_limit)
            if ended is not None and ended.code is not None and ended.code >= 0:
                self._deliver_ended(flight, ended, answers)
            else:
                self._fail(flight, known, answers)
            return True
        return self._is_gone(flight, answers)

    def _is_gone(self, flight: Flight, answers: LabelQueue) -> bool:
        """Deliver the answer of a job that is over, or that it left none."""
        has_started(flight.job.folder)  # makes a network file system look again
        ended = how_it_ended(flight.job.folder, self.time_limit)
        if ended is not None:
            self._deliver_ended(flight, ended, answers)
        elif flight.seconds_since_end() < self.settle:
            return False
        else:
            self._fail(flight, Known("infrastructure", "it ended without saying how: it was killed, perhaps"), answers)
        return True

    def _deliver_ended(self, flight: Flight, ended: Ended, answers: LabelQueue) -> None:
        self.deliver(flight.request, Place(flight.job.folder, flight.request.id), ended, answers)

    def _fail(self, flight: Flight, known: Known, answers: LabelQueue) -> None:
        """Report that a job has no answer."""
        folder, kind = flight.job.folder, _FAILURES[known.state]
        seconds = seconds_worked(folder)
        reason = f"job {flight.handle or flight.job.name}: {known.reason}; see {folder}"
        answers.put(Failed(flight.request, reason, kind, seconds if self.cost_by == "seconds" else None))
        self.folders.note_delivered(flight.request)

    def _cancel(self, flights: Iterable[Flight]) -> None:
        try:
            self.jobs.cancel({one.handle: one.job for one in flights if one.handle is not None})
        except SchedulerFault as fault:
            self._warn(fault)

    # -- the rest ----------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Wait until the scheduler may be asked again; longer where that takes long."""
        took = time.monotonic() - self._polled
        time.sleep(max(self.jobs.interval, 5 * took))

    def _warn(self, fault: SchedulerFault) -> None:
        """Log what a scheduler says, at most once in ten minutes."""
        text, now = str(fault), time.monotonic()
        if now - self._faults.get(text, -600.0) >= 600.0:
            self._faults[text] = now
            self.logger.warning("%s; tried again later, jobs go on", text)


def _give_back(requests: QueryQueue, left: Iterable[Request]) -> None:
    for request in left:
        with contextlib.suppress(UsageError):  # it was answered by somebody else
            requests.give_back(request)


def _scheduler(name: Scheduler, options: list[str], commands: dict[str, str], interval: float | None) -> Jobs:
    if name == "local":
        return LocalJobs(0.05 if interval is None else interval)
    rate = 10.0 if interval is None else interval
    return SlurmJobs(options, rate) if name == "slurm" else CommandJobs(**commands, interval=rate)


def _under_way(running: int, waiting: int) -> str:
    jobs = "1 job is" if running == 1 else f"{running} jobs are"
    return f"{jobs} under way" + (f", and {waiting} more are to be submitted" if waiting else "")
