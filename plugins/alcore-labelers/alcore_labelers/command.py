"""The label strategy that runs a program for each request, or for a batch of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from alcore.errors import UsageError
from alcore.protocols import Failed, LabelQueue, QueryQueue, Request
from alcore_labelers.attempts import (
    Ended,
    Place,
    batch_files,
    begin,
    environment,
    is_cut_off,
    note_interrupted,
    read_done,
    request_files,
    write_done,
)
from alcore_labelers.job_script import seconds_worked
from alcore_labelers.outcomes import Answer
from alcore_labelers.program_options import Cost, Keep, ProgramLabelStrategy, check_at_least
from alcore_labelers.programs import end_processes, run_program
from alcore_labelers.queues import give_back


class CommandLabelStrategy(ProgramLabelStrategy):
    """Run a program for each request, and take its answer.

    Each attempt has a folder in the run directory, in which the program works. There it finds ``request.json``, and
    leaves ``result.json``, ``result.npz``, or its answer as the last line on stdout.

    Parameters
    ----------
    run
        The program and its arguments, such as ``./solver {T} {p}``, with values by name in braces; ``x0``, ``x1``, ...
        where the data names none. Others: ``{request}``, ``{sample}``, ``{attempt}``, ``{seed}``, ``{folder}``. It is
        split into arguments before values are put in, and no shell sees it.
    max_in_flight
        How many programs run at the same time.
    timeout
        Seconds after which a program is ended, with all processes of its group; no limit if it is not given.
    answer
        Where the answer is: ``result`` for ``result.json`` and ``result.npz``, ``stdout`` for the last line of stdout,
        ``auto`` for that line where neither file is there.
    infeasible_exits
        Exit codes with which the program says that the item has no label, for instance ``[3]``.
    batch
        How many requests are given to one call of the program, in ``requests.json``.
    keep
        ``all`` folders, or only those of ``failures``.
    cost
        What an attempt costs if the program doesn't say: what was ``expected`` of it, or its ``seconds``.
    env
        Variables for the program, beside those of this process.
    max_result_bytes
        The most that is read of ``result.npz``.
    """

    idempotent = True  # what has run is found in its folder
    remote = True  # it also works in `alcore worker`, with folders there
    code_parameters = frozenset({"run", "env"})

    def __init__(
        self,
        run: str,
        max_in_flight: int = 1,
        timeout: float | None = None,
        answer: Answer = "auto",
        infeasible_exits: list[int] | None = None,
        batch: int = 1,
        keep: Keep = "all",
        cost: Cost = "expected",
        env: dict[str, str] | None = None,
        max_result_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        where = "CommandLabelStrategy"
        check_at_least(where, "max_in_flight", max_in_flight, 1)
        check_at_least(where, "batch", batch, 1)
        if timeout is not None and not timeout > 0:
            raise UsageError(f"{where}: timeout is {timeout}; it must be a number of seconds above 0.")
        super().__init__(run, answer, infeasible_exits, keep, cost, env, max_result_bytes, where, batch)
        self.max_in_flight, self.timeout = max_in_flight, timeout

    @property
    def at_once(self) -> int:
        """How many requests programs work on at the same time, at most."""
        return self.max_in_flight * self.batch

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Answer every request of the first queue in the second; programs are ended where this is interrupted."""
        self.read_shown()
        command, stop = self._absolute(), threading.Event()
        running: dict[Future[Ended | None], list[Request]] = {}
        open_: dict[str, Request] = {}
        with ThreadPoolExecutor(self.max_in_flight, thread_name_prefix="alcore-command") as threads:
            try:
                while True:
                    while len(running) < self.max_in_flight and (requests := queue_to_label.get_many(self.batch)):
                        open_ |= {request.id: request for request in requests}
                        if left := self._take_up(requests, serialize_queue, open_):
                            running[self._start(threads, command, left, stop)] = left
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._finish(running.pop(future), future.result(), serialize_queue, open_)
            finally:
                stop.set()
                give_back(queue_to_label, open_.values())

    def _take_up(self, requests: Sequence[Request], answers: LabelQueue, open_: dict[str, Request]) -> list[Request]:
        """Deliver what was finished before the run was cut off; return the requests that are left to be run.

        A program that is still running is ended, and run again. One that was started, and left no word of its end,
        counts as an attempt: it may have done its work.
        """
        left = []
        for request in requests:
            place = self.folders.find(request)
            ended = None if place is None else read_done(place.folder)
            if place is not None and ended is None and end_processes(place.folder):
                self.logger.warning("what was still running in %s was ended", place.folder)
                note_interrupted(place.folder)
            if place is not None and ended is not None:
                self.deliver(request, place, ended, answers)
            elif place is not None and is_cut_off(place.folder):
                self._fail_cut_off(request, place, answers)
            else:
                left.append(request)
                continue
            del open_[request.id]
        return left

    def _fail_cut_off(self, request: Request, place: Place, answers: LabelQueue) -> None:
        reason = (
            "its program was started, and it is not known how it ended: alcore was killed, or could not write that; "
            f"see {place.folder}"
        )
        cost = seconds_worked(place.folder) / place.size if self.cost_by == "seconds" else None
        answers.put(Failed(request, reason, "infrastructure", cost))
        self.folders.note_delivered(request)

    def _start(
        self, threads: ThreadPoolExecutor, command: Any, requests: list[Request], stop: threading.Event
    ) -> Future[Ended | None]:
        """Make the folder of a batch, and run the program there."""
        items, first = self.items(requests), requests[0]
        seeds = [self.seed(request) for request in requests]
        folder = self.folders.prepare(first)
        if self.batch == 1:
            files = request_files(self.driver, items[0], seeds[0])
        else:
            files = batch_files(self.driver, items, seeds)
        self.folders.make(folder, files)
        self.folders.note_batch(requests, folder)
        env = environment(self.driver, folder, first, items[0].sample, seeds[0]) | self.env
        try:
            arguments = command.arguments(self.placeholders(items[0], seeds[0], folder))
        except UsageError as error:
            return threads.submit(_failed, folder, str(error))
        return threads.submit(_run, arguments, folder, env, self.timeout, stop)

    def _finish(
        self, requests: Sequence[Request], ended: Ended | None, answers: LabelQueue, open_: dict[str, Request]
    ) -> None:
        """Deliver what a program answered."""
        for request in requests:
            place = self.folders.find(request)
            if ended is None or place is None:
                answers.put(Failed(request, "its folder was removed while the program ran", cost=None))
            else:
                self.deliver(request, place, ended, answers)
            del open_[request.id]


def _run(
    arguments: list[str], folder: Path, env: Mapping[str, str], timeout: float | None, stop: threading.Event
) -> Ended | None:
    try:
        begin(folder)
    except OSError as error:
        return _failed(folder, str(error))
    ended = run_program(arguments, folder, env, timeout, stop)
    if ended is None:
        note_interrupted(folder)
    else:
        write_done(folder, ended)
    return ended


def _failed(folder: Path, reason: str) -> Ended:
    ended = Ended(None, 0.0, reason=reason)
    write_done(folder, ended)
    return ended
