"""The label strategy whose programs are jobs: for hours and days, whatever becomes of the driver."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from pathlib import Path
from typing import Any, Literal

from alcore.errors import UsageError, Waiting, check_choice
from alcore.protocols import Failed, FailureKind, LabelQueue, QueryQueue, Request
from alcore_labelers.attempts import Ended, Place, environment, request_files
from alcore_labelers.command_jobs import CommandJobs
from alcore_labelers.flight import Flight
from alcore_labelers.job_script import (
    SCRIPT,
    TERMS,
    Terms,
    has_started,
    heartbeat_of,
    how_it_ended,
    job_script,
    revoke,
    said_at_end,
    seconds_worked,
    start_of,
    terms_file,
    terms_of,
)
from alcore_labelers.job_states import UNSETTLED, JobChange, JobState
from alcore_labelers.local_jobs import LocalJobs
from alcore_labelers.outcomes import Answer, text_of_reason
from alcore_labelers.program_options import Cost, Keep, ProgramLabelStrategy, check_at_least
from alcore_labelers.programs import GRACE
from alcore_labelers.queues import give_back
from alcore_labelers.scheduler_calls import FAULTS, SchedulerCalls
from alcore_labelers.schedulers import Job, Jobs, Known, NotSubmittedError, SchedulerError, SchedulerFault
from alcore_labelers.slurm_jobs import SlurmJobs

Scheduler = Literal["local", "slurm", "commands"]
_OVERDUE = 60.0  # seconds after its limit and the grace at which a job that nobody ended is ended by us
_AT_A_SCHEDULER = 100  # jobs at the same time, where nobody says how many
_TOLD = 1.0  # seconds between two looks for what was told
_SHORTEST = 0.01  # seconds between two looks at the files of jobs
_BEATS = 1.5  # heartbeats of silence after which a job is over that the scheduler says to be over
_UNDER_WAY = ("waiting", "running", "suspended")
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
        How many jobs are submitted, or run, at the same time. If it is not given, 1 for ``local``, where jobs share
        this machine, and 100 for a scheduler, which has them wait for their turn.
    wait
        Whether to wait for the jobs; otherwise the run ends with exit code 3 while jobs are under way, and ``alcore
        resume`` looks for them.
    time_limit
        Seconds after which a job is ended; that is paid for. No limit if it is not given. A job keeps the limit that it
        was submitted with. Time in which it is suspended counts.
    poll_interval
        Seconds between two questions to the scheduler, at least; 10 if it is not given, and 0.05 for ``local``.
    options
        Of ``sbatch``, for instance ``["--partition=long"]``.
    submit
        Command that submits a job and prints its handle, with ``{name}``, ``{script}``, ``{folder}``, ``{time_limit}``.
        Exit code 75 says that the job was not submitted, and may be later.
    poll
        Command that prints what has become of ``{handle}``: waiting, running, suspended, ended, infrastructure,
        timeout, cancelled, unknown.
    cancel
        Command that ends the job ``{handle}``; without it none is ended.
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
        Seconds after the end of a job in which its files must appear, since a network file system may be late, and in
        which a scheduler is asked why a program was ended by a signal.
    jobs
        In Python: an object with the methods of `Jobs`, in place of a scheduler.
    heartbeat
        Seconds between two heartbeats that a job writes to its folder while it is alive.
    lost_after
        Seconds after which a job counts as lost that the scheduler doesn't know, and of which no heartbeat has come;
        at least three heartbeats.
    give_up_after
        Seconds for which the scheduler is asked again where it can't be reached, or says what is not understood; then
        its jobs count as unknown to it, and those that it didn't take have failed. With ``wait=false`` the time is kept
        from driver to driver.
    """

    told = False
    code_parameters = frozenset({"run", "env", "options", "submit", "poll", "cancel", "find", "fetch"})

    def __init__(
        self,
        run: str,
        scheduler: Scheduler = "local",
        max_in_flight: int | None = None,
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
        heartbeat: float = 10.0,
        lost_after: float = 120.0,
        give_up_after: float = 86400.0,
    ) -> None:
        where = "JobsLabelStrategy"
        super().__init__(run, answer, infeasible_exits, keep, cost, env, max_result_bytes, where)
        check_choice(where, "scheduler", scheduler, ("local", "slurm", "commands"))
        check_at_least(where, "max_in_flight", max_in_flight, 1)
        check_at_least(where, "settle", settle, 0)
        check_at_least(where, "poll_interval", poll_interval, 0)
        check_at_least(where, "give_up_after", give_up_after, 0)
        for name, value in (("time_limit", time_limit), ("heartbeat", heartbeat)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{where}: {name} is {value}; it must be a number of seconds above 0.")
        if not 2.999 * heartbeat <= lost_after < math.inf:
            raise UsageError(
                f"{where}: lost_after is {lost_after:g}, and must be at least three heartbeats, {3 * heartbeat:g} "
                "seconds: one may come late."
            )
        commands = {"submit": submit, "poll": poll, "cancel": cancel, "find": find, "fetch": fetch}
        if scheduler != "commands" and (given := [name for name, text in commands.items() if text]):
            raise UsageError(f"{where}: {given[0]} is given, and only the scheduler 'commands' takes it.")
        if options and scheduler != "slurm":
            raise UsageError(f"{where}: options is given, and only the scheduler 'slurm' takes it.")
        if jobs is None:
            jobs = _scheduler(scheduler, options or [], commands, poll_interval, time_limit)
        self.jobs, self.wait = jobs, wait
        self.max_in_flight = max_in_flight or (1 if isinstance(jobs, LocalJobs) else _AT_A_SCHEDULER)
        self.time_limit, self.settle, self.heartbeat = time_limit, settle, heartbeat
        self.lost_after, self.give_up_after = lost_after, give_up_after
        self.idempotent = jobs.finds  # then it is known of each request what has become of it
        self._handles: dict[str, str] = {}  # by job: a request that was given back may be handed out as it was
        self._owners: dict[str, str] = {}  # the jobs that handles were given to last
        self._warned: set[str] = set()
        self._token, self._command = "", self.run

    @functools.cached_property
    def _calls(self) -> SchedulerCalls:
        return SchedulerCalls(self.jobs, self.give_up_after, self.folders.work, self.logger)

    @property
    def at_once(self) -> int:
        """How many jobs there are at the same time, at most."""
        return self.max_in_flight

    def check(self) -> None:
        """Raise `UsageError` if the program or the scheduler is not there."""
        super().check()
        self.jobs.check()

    def is_in_doubt(self, request: Request) -> bool:
        """Return whether a job may have been submitted of which nothing is known."""
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
                is_held = self._submit_next(queue_to_label, flights, serialize_queue)
                if not flights and not (is_held and queue_to_label.qsize()):
                    return
                answered = self._look(flights, serialize_queue)
                self._heed_recall(queue_to_label, flights)
                self._drop_told(flights)
                if not self.wait and not answered and not any(flight.is_ending for flight in flights.values()):
                    raise Waiting(_under_way(len(flights), queue_to_label.qsize()))
                if not answered:
                    self._rest(flights)
        finally:
            give_back(queue_to_label, [flight.request for flight in flights.values() if self._can_be_settled(flight)])

    def _rest(self, flights: dict[str, Flight]) -> None:
        """Wait until the scheduler may be asked again, or something was told."""
        end = time.monotonic() + max(self.jobs.interval, _SHORTEST)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TOLD))
            if self._drop_told(flights):
                return

    def _drop_told(self, flights: dict[str, Flight]) -> bool:
        """Look no more at the jobs of requests that were answered by somebody else; return whether there were any."""
        told = self.take_told()
        for request in told:
            if (flight := flights.get(request.id)) is not None:
                flight.change(JobChange.END)
        _drop_over(flights)
        return bool(told)

    def _can_be_settled(self, flight: Flight) -> bool:
        """Return whether a later driver can find out what has become of a job, so that its request is given back."""
        return flight.state is not JobState.OVER and (flight.state is not JobState.IN_DOUBT or self.jobs.finds)

    # -- what is under way -------------------------------------------------------------------------------------

    def _take_up(self, requests: QueryQueue, flights: dict[str, Flight]) -> None:
        """Find the requests whose jobs were submitted before, which are in flight; the others go back to the queue.

        Those are taken out one by one, since nothing is handed out any more where labels keep failing.
        """
        taken = requests.get_many(2**31 - 1)
        try:
            for request in taken:
                place = self.folders.find(request)
                if place is not None and not start_of(place.folder).is_revoked:  # else it gets another folder
                    terms = terms_of(place.folder, Terms(self.time_limit, None))
                    job = self._job(request, place.folder, terms)
                    handle = request.handle or self._handles.get(job.name)
                    flight = Flight(request, job, handle, terms.heartbeat or 0.0)
                    flights[request.id] = flight
                    self.logger.info("job %s of request %s is taken up", flight.handle or job.name, request.id)
        finally:
            give_back(requests, [request for request in taken if request.id not in flights])

    def _heed_recall(self, requests: QueryQueue, flights: dict[str, Flight]) -> None:
        """Take back the jobs that have not begun and should not; their requests are asked for again in a later step."""
        for request in requests.recalled():
            flight = flights.get(request.id)
            if flight is None or not self._never_begins(flight):
                continue
            self.folders.note_delivered(request)  # the next attempt has another folder, so another job
            self.logger.info("job %s had not begun, and is taken back", flight.handle or flight.job.name)
            if not self._is_apart:
                self._calls.cancel(flight)  # else the job finds that it must not begin
            flight.change(JobChange.END)
            _drop_over(flights)
            give_back(requests, [request])

    def _never_begins(self, flight: Flight) -> bool:
        """See to it that a job that has not begun never does; return False where it has, or where nothing tells."""
        state = None if flight.said is None else flight.said.state
        if self._is_apart and flight.state is not JobState.NOT_SUBMITTED:
            return state == "waiting" and self._calls.cancel(flight)
        return state in (None, "waiting") and (not flight.job.folder.exists() or revoke(flight.job.folder))

    @property
    def _is_apart(self) -> bool:
        """Whether a job has another folder on its machine, so that it can't be kept from beginning by a file."""
        return getattr(self.jobs, "fetches", False)

    def _submit_next(self, requests: QueryQueue, flights: dict[str, Flight], answers: LabelQueue) -> bool:
        """Submit as many jobs as there may be, those first of which it isn't known whether they were submitted.

        Return whether requests are left for later, since the scheduler takes no jobs now.
        """
        for flight in flights.values():
            if flight.state in UNSETTLED and flight.backoff.is_due:
                self._settle_doubt(flight, answers)
        _drop_over(flights)
        while len(flights) < self.max_in_flight:
            if not self._calls.is_due("submit"):
                return True
            if not (taken := requests.get_many(1)):
                break
            try:
                flight = Flight(taken[0], self._prepare(taken[0]), None, self.heartbeat)
                flights[taken[0].id] = flight
            except UsageError as error:  # a value that the command can't be given
                answers.put(Failed(taken[0], str(error), cost=0.0))
                continue
            except BaseException:
                give_back(requests, taken)
                raise
            self._submit(flight, answers)
            _drop_over(flights)
        return False

    def _prepare(self, request: Request) -> Job:
        """Make the folder of an attempt."""
        (item,) = self.items([request])
        folder, seed = self.folders.prepare(request), self.seed(request)
        arguments = self._command.arguments(self.placeholders(item, seed, folder))
        env = environment(self.driver, folder, request, item.sample, seed) | self.env
        terms = Terms(self.time_limit, self.heartbeat)
        script = job_script(
            folder,
            arguments,
            env,
            terms.time_limit,
            GRACE,
            heartbeat=self.heartbeat,
            id_variable=self._id_variable,
            inquiry=getattr(self.jobs, "inquiry", ""),
        )
        files = {**request_files(self.driver, item, seed), SCRIPT: script, TERMS: terms_file(terms)}
        self.folders.make(folder, files, executable=[SCRIPT])
        return self._job(request, folder, terms)

    def _job(self, request: Request, folder: Path, terms: Terms) -> Job:
        name = f"job-{request.id}-{folder.name.removeprefix('attempt-')}.{self._token}"
        return Job(name, folder, folder / SCRIPT, terms.time_limit)

    @property
    def _id_variable(self) -> str:
        return getattr(self.jobs, "id_variable", "")

    def _settle_doubt(self, flight: Flight, answers: LabelQueue) -> None:
        """Find out whether a job was submitted; submit it if it was not."""
        job = flight.job
        if flight.state is JobState.NOT_SUBMITTED:
            flight.job = self._prepare(flight.request)  # in another folder, with another name
            self._submit(flight, answers)
            return
        ended = how_it_ended(job.folder, job.time_limit)
        if ended is not None and not self._is_cut_short(flight, ended):
            return  # `_look` takes the answer
        handle = None
        if self.jobs.finds:
            try:
                handle = self._calls.find(job)
            except FAULTS as fault:
                self._try_later(flight, str(fault), self.give_up_after, answers)
                return
        if handle is not None:
            self._commit(flight, handle, answers)
        elif has_started(job.folder):
            flight.change(JobChange.BEGIN)  # the scheduler has forgotten it, or can't be asked
        elif self.jobs.finds or flight.state is JobState.PREPARED:  # without `find`, the user has decided
            self._submit(flight, answers)
        else:
            self._try_later(flight, flight.backoff.fault, self.lost_after, answers)

    def _submit(self, flight: Flight, answers: LabelQueue) -> None:
        """Submit a job."""
        flight.change(JobChange.SUBMIT)
        try:
            handle = self.jobs.submit(flight.job)
        except SchedulerError as error:
            self._give_up(flight, str(error).rstrip("."), answers)
        except (SchedulerFault, OSError) as fault:
            if isinstance(fault, NotSubmittedError) and not self.jobs.finds:
                flight.change(JobChange.REFUSE if revoke(flight.job.folder) else JobChange.BEGIN)
            if flight.state is not JobState.BEGUN:
                self._try_later(flight, str(fault), self.give_up_after, answers)
            self._calls.failed("submit", fault)  # after that of the flight, which is due before the next request then
        else:
            self._calls.succeeded("submit")
            self._commit(flight, handle, answers)

    def _try_later(self, flight: Flight, fault: str, most: float, answers: LabelQueue) -> None:
        """Note that a job may not be submitted; after `most` seconds of that, give it up."""
        flight.backoff.failed(fault, self._calls.first_wait)
        if flight.backoff.seconds >= most:
            self._give_up(flight, f"for {flight.backoff.seconds:.3g} s it was not taken: {fault}", answers)

    def _commit(self, flight: Flight, handle: str, answers: LabelQueue) -> None:
        """Commit the handle of a job."""
        answers.submitted(flight.request, handle)
        flight.identify(handle)
        self._handles[flight.job.name] = handle
        self._owners[handle] = flight.job.name

    def _is_owner(self, flight: Flight) -> bool:
        """Whether the handle of a flight was not given to a later job, by a scheduler that has forgotten this one."""
        return self._owners.get(flight.handle or "", flight.job.name) == flight.job.name

    # -- what has become of it ---------------------------------------------------------------------------------

    def _look(self, flights: dict[str, Flight], answers: LabelQueue) -> int:
        """Deliver the answers of jobs that are over; return how many."""
        for flight in flights.values():
            self._take_own_id(flight, answers)
        for flight in flights.values():
            self._look_for_exit(flight, answers)
        submitted = [flight for flight in flights.values() if flight.state is JobState.SUBMITTED]
        asked = {flight.handle: flight for flight in submitted if self._is_owner(flight)}
        states = (
            self._calls.poll({handle: flight.job for handle, flight in asked.items() if handle}) if submitted else None
        )
        for flight in submitted if states is not None else ():
            said = states.get(flight.handle or "") if states and asked.get(flight.handle) is flight else None
            self._look_with(said, flight, answers)
        for flight in flights.values():
            if flight.state is JobState.BEGUN:
                self._look_at_files(flight, None, answers)
        return _drop_over(flights)

    def _take_own_id(self, flight: Flight, answers: LabelQueue) -> None:
        """Take the id that a job wrote for its handle: the scheduler may have forgotten that it was submitted."""
        if self._id_variable and has_started(flight.job.folder):
            own = start_of(flight.job.folder).job_id
            if own and own != flight.handle:
                self.logger.info("job %s runs as %s, not as %s", flight.job.name, own, flight.handle or "was known")
                with contextlib.suppress(UsageError):  # the request was answered by somebody else
                    self._commit(flight, own, answers)

    def _look_for_exit(self, flight: Flight, answers: LabelQueue) -> None:
        """Deliver the answer of a job whose program has ended; where it was cut short the scheduler is asked why."""
        job, state = flight.job, flight.state
        ended = None if state is JobState.NOT_SUBMITTED else how_it_ended(job.folder, job.time_limit)
        if ended is None:
            return
        can_be_asked = state is JobState.SUBMITTED or (self.jobs.finds and state is not JobState.BEGUN)
        if (
            can_be_asked
            and self._is_cut_short(flight, ended)
            and flight.seconds_since_exit() < self._longest_doubt(flight)
        ):
            return
        if self._calls.fetch(flight):  # what is here may have come with a fetch that broke off
            self._deliver_ended(flight, how_it_ended(job.folder, job.time_limit) or ended, flight.said, answers)

    def _is_cut_short(self, flight: Flight, ended: Ended) -> bool:
        """Return whether a program was ended by a signal, and not by its limit, or after SIGTERM without an answer."""
        if ended.code is None or ended.timed_out:
            return False
        is_cut = ended.was_terminated and not self.left_files(Place(flight.job.folder, flight.request.id))
        return ended.code < 0 or is_cut

    def _longest_doubt(self, flight: Flight) -> float:
        """Return for how many seconds the scheduler is asked why a program was cut short."""
        said = flight.said
        is_busy = (
            said is not None and not said.fault and said.state in _UNDER_WAY and not self._calls.seconds_failing("poll")
        )
        return max(self.lost_after if is_busy else self.settle, 2 * self.jobs.interval)

    def _look_with(self, state: Known | None, flight: Flight, answers: LabelQueue) -> None:
        """Deliver the answer of a job if it is over, as the scheduler says, or if it doesn't know it."""
        job, flight.said = flight.job, state
        if state is not None and state.warning and state.warning not in self._warned:
            self._warned.add(state.warning)
            self.logger.warning("job %s %s; this is told once, of one job", flight.handle, state.warning)
        if state is not None and state.fault:
            if flight.backoff.failed(state.fault, 0.0):
                self.logger.warning("%s; tried again later, jobs go on", state.fault)
            if flight.backoff.seconds >= self.give_up_after:
                state = None
        elif state is not None:
            flight.backoff.succeeded()
        if state is None or state.state not in _UNDER_WAY:
            self._look_at_files(flight, state, answers)
            return
        flight.is_there()
        working = flight.seconds_at_work(begun=has_started(job.folder), is_suspended=state.state == "suspended")
        if job.time_limit is not None and working > job.time_limit + GRACE + _OVERDUE and self._calls.cancel(flight):
            self._fail(flight, Known("timeout", f"it was ended, {_OVERDUE:g} s after its limit"), answers)

    def _look_at_files(self, flight: Flight, state: Known | None, answers: LabelQueue) -> None:
        """Deliver the answer of a job that the scheduler says to be over, or doesn't know; it is if it is silent."""
        folder = flight.job.folder
        if not self._calls.fetch(flight):
            return
        has_begun = has_started(folder)  # makes a network file system look again
        ended = how_it_ended(folder, flight.job.time_limit)
        if ended is not None:
            self._deliver_ended(flight, ended, state, answers)
        elif start_of(folder).is_revoked:  # by a driver that was killed then
            self._give_up(flight, "it had not begun, and was given up", answers)
        elif state is not None and state.state in _FAILURES and not has_begun:
            self._give_up(flight, state, answers)
        elif (silent := flight.seconds_silent(heartbeat_of(folder))) >= self._longest_silence(flight, state):
            self._end_silent(flight, state, silent, answers, has_begun=has_begun)

    def _end_silent(
        self, flight: Flight, state: Known | None, silent: float, answers: LabelQueue, *, has_begun: bool
    ) -> None:
        """Deliver the answer of a job that has been silent for too long, unless the scheduler knows its name."""
        if has_begun:
            if state is None:
                self._calls.cancel(flight)  # it may be at work all the same
            self._fail(flight, self._why(flight, state, silent), answers)
        elif state is not None:
            self._give_up(flight, "it ended, and had not begun to work", answers)
        elif self.jobs.finds and self._is_found(flight, answers):
            flight.is_there()
        else:
            why = f"it has not begun, and for {silent:.3g} s the scheduler didn't know it"
            self._give_up(flight, why, answers)

    def _longest_silence(self, flight: Flight, state: Known | None) -> float:
        """Return for how many seconds a job must give no heartbeat to be over."""
        if state is None:
            return max(self.lost_after, 3 * flight.heartbeat, self.settle)
        if getattr(self.jobs, "sees_processes", False):
            return self.settle
        return max(self.settle, _BEATS * flight.heartbeat)

    def _is_found(self, flight: Flight, answers: LabelQueue) -> bool:
        """Return whether the scheduler knows the name of a job whose handle it doesn't know, or can't be asked now."""
        if not flight.backoff.is_due:
            return True
        try:
            handle = self._calls.find(flight.job)
        except FAULTS as fault:
            flight.backoff.failed(str(fault), self._calls.first_wait)
            return max(flight.backoff.seconds, self._calls.seconds_failing("poll")) < self.give_up_after
        if handle is not None and handle != flight.handle:
            self._commit(flight, handle, answers)
        return handle is not None

    def _why(self, flight: Flight, state: Known | None, silent: float) -> Known:
        """Return why a job is over that has not said so: what the scheduler says, or has said to the job."""
        if state is not None and state.state in _FAILURES:
            return state
        if (told := self._told(flight)) is not None:
            return told
        if state is not None:
            return Known("infrastructure", "it ended without saying how: it was killed, perhaps")
        return Known("infrastructure", f"the scheduler doesn't know it, and it gave no heartbeat for {silent:.3g} s")

    def _told(self, flight: Flight) -> Known | None:
        """Return what the scheduler said of a job when that was sent SIGTERM; None where that is not known."""
        understood, said = getattr(self.jobs, "understood", None), said_at_end(flight.job.folder)
        if understood is None or not said or flight.handle is None:
            return None
        state: Known | None = understood(said, flight.job, flight.handle)
        return state if state is not None and state.state in _FAILURES else None

    def _deliver_ended(self, flight: Flight, ended: Ended, state: Known | None, answers: LabelQueue) -> None:
        """Deliver what a job left that came to its end; where it was cut short, why is what the scheduler says."""
        why = None
        if ended.code is None:
            why = Known("infrastructure", ended.reason)
        elif self._is_cut_short(flight, ended):
            why = state if state is not None and state.state in _FAILURES else self._told(flight)
        if why is not None:
            self._fail(flight, why, answers)
        else:
            self.deliver(flight.request, Place(flight.job.folder, flight.request.id), ended, answers)
            flight.change(JobChange.END)

    def _give_up(self, flight: Flight, why: Known | str, answers: LabelQueue) -> None:
        """Report that a job did not begin, and see to it that it never does, unless it has begun now."""
        if flight.job.folder.exists() and not revoke(flight.job.folder):
            flight.change(JobChange.BEGIN)
            flight.is_there()
        else:
            self._fail(flight, Known("infrastructure", why) if isinstance(why, str) else why, answers)

    def _fail(self, flight: Flight, state: Known, answers: LabelQueue) -> None:
        """Report that a job has no answer."""
        folder, kind = flight.job.folder, _FAILURES[state.state]
        has_begun = has_started(folder) and not start_of(folder).is_revoked
        cost = None if has_begun and self.cost_by == "expected" else seconds_worked(folder) if has_begun else 0.0
        reason = f"job {flight.handle or flight.job.name}: {text_of_reason(state.reason)}; see {folder}"
        answers.put(Failed(flight.request, reason, kind, cost))
        flight.change(JobChange.END)
        self.folders.note_delivered(flight.request)
        for backoff in (flight.backoff, flight.fetching, flight.canceling):
            backoff.succeeded()  # the request may be opened again


def _scheduler(
    name: Scheduler, options: list[str], commands: dict[str, str], interval: float | None, limit: float | None
) -> Jobs:
    if name == "local":
        return LocalJobs(0.05 if interval is None else interval)
    rate = 10.0 if interval is None else interval
    return (
        SlurmJobs(options, rate, limit) if name == "slurm" else CommandJobs(**commands, interval=rate, time_limit=limit)
    )


def _drop_over(flights: dict[str, Flight]) -> int:
    """Remove the flights whose job is over; return how many there were."""
    over = [key for key, flight in flights.items() if flight.state is JobState.OVER]
    for key in over:
        del flights[key]
    return len(over)


def _under_way(running: int, waiting: int) -> str:
    jobs = "1 job is" if running == 1 else f"{running} jobs are"
    return f"{jobs} under way" + (f", and {waiting} more are to be submitted" if waiting else "")
