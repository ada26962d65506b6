"""A worker: claims tasks, has a label strategy answer them, and says that it lives."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

from alcore.errors import Interrupted, UsageError
from alcore.strategies import works_remotely
from alcore_worker.context import WorkerContext
from alcore_worker.ending import Calls
from alcore_worker.exchange import AwayError, Exchange, calling_by
from alcore_worker.heartbeat import Heartbeat
from alcore_worker.names import DocumentError, Note, read_note
from alcore_worker.retry import ExchangeRetry, sleep
from alcore_worker.scheduling import RunCheck, RunGoneError, Scheduler, TimeSlice
from alcore_worker.signals import ending_at_signals
from alcore_worker.task_queue import Task, TaskAnswerQueue, TaskQueue

_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two looks for work, doubled while there is none
_BEATS = 3  # within `silent_after`
_LONGEST_BEAT = 86400.0  # seconds


def check_remote(name: str, strategy: Any) -> None:
    """Raise `UsageError` unless a label strategy, or its class, says that it works without a Driver."""
    if not works_remotely(strategy):
        raise UsageError(
            f"the label strategy {name!r} can't work in a worker: it needs the run's Driver, since it doesn't declare "
            "remote = True. Use one that does, such as `function` or `command`, or label where the run is."
        )


class Worker:
    """Has a label strategy answer what waits in an exchange.

    Parameters
    ----------
    exchange
        Where work is.
    strategy
        A label strategy with ``remote = True``.
    name
        The name of the strategy.
    once
        Whether to end when nothing waits.
    idle
        Seconds without work after which to end; None for never.
    beat
        Seconds between two heartbeats; fewer where a run takes a worker for lost before the third one.
    home
        Where a folder for files of the strategy is made when it writes any.
    logger
        Told what happens.
    handles_signals
        Whether SIGINT and SIGTERM end the worker also where the program has handlers of its own for them.

    Attributes
    ----------
    answers, failures : int
        How many labels there were, and how many requests that have none.
    unwritten : int
        How many answers could not be written.
    has_come : bool
        Whether the worker has reached the exchange, so that it may have claimed something.
    has_left : bool
        Whether the worker has ended, and what it had claimed and not answered was given back.

    Raises
    ------
    UsageError
        If the strategy can't work without a Driver, or a number of seconds is out of range.
    """

    def __init__(
        self,
        exchange: Exchange,
        strategy: Any,
        name: str,
        *,
        once: bool = False,
        idle: float | None = None,
        beat: float = 2.0,
        home: Path = Path("alcore_worker_files"),
        logger: logging.Logger | None = None,
        handles_signals: bool = False,
    ) -> None:
        check_remote(name, strategy)
        if not 0 < beat <= _LONGEST_BEAT:
            raise UsageError(f"beat is {beat!r}; it must be a number of seconds above 0, and at most a day.")
        if idle is not None and not idle >= 0:
            raise UsageError(f"idle is {idle!r}; it must be a number of seconds, or be left out.")
        self._strategy, self._name = strategy, name
        self._once, self._idle, self._beat, self._home = once, idle, beat, home
        self._logger = logger or logging.getLogger("alcore.worker")
        host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40] or "host"
        self.id = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._is_ending = False  # no Event, which a signal handler can't set while the same thread does
        calls = Calls(lambda: self._is_ending, exchange.where)
        self._of_heartbeat, self._exchange = exchange, calling_by(calls.call, exchange)
        self._heartbeat: Heartbeat | None = None
        self._retry = ExchangeRetry(self._logger, self.safe_point)
        self._scheduler = Scheduler(calling_by(self._retry.call, self._exchange), self._logger)
        self.answers = self.failures = self.unwritten = 0
        self.has_come = self.has_left = False
        self._handles_signals = handles_signals

    def stop(self) -> None:
        """Ask the worker to end at the next safe point; from any thread."""
        self._is_ending = True

    def safe_point(self) -> None:
        """Raise `Interrupted` if the worker was asked to end, `UsageError` if the exchange refuses its heartbeat."""
        if self._is_ending:
            raise Interrupted("the worker was asked to end")
        if self._heartbeat is not None and self._heartbeat.fault is not None:
            raise self._heartbeat.fault

    def run(self) -> None:
        """Work until nothing is left, if that is when to end; else until it is interrupted.

        Raises
        ------
        KeyboardInterrupt
            If it was interrupted. What it had claimed and not answered was given back if `has_left`.
        """
        with ending_at_signals(self._end, replace_handlers=self._handles_signals):
            self._retry.call(lambda: self._exchange.beat(self.id))
            self.has_come = True
            try:
                with Heartbeat(self._of_heartbeat, self.id, self._beat, self._logger) as self._heartbeat:
                    self._work()
            finally:
                self._is_ending = True
                with contextlib.suppress(AwayError):
                    self._exchange.leave(self.id)
                    self.has_left = True

    def _end(self) -> bool:
        """Ask the worker to end; return whether it was asked before."""
        before, self._is_ending = self._is_ending, True
        return before

    def _work(self) -> None:
        wait, since = _SHORTEST_WAIT, time.monotonic()
        last = ""
        while True:
            served = next((run for run in self._scheduler.order(last) if self._serve(run)), None)
            if served is not None:
                last, wait, since = served, _SHORTEST_WAIT, time.monotonic()
                continue
            if self._once or (self._idle is not None and time.monotonic() - since > self._idle):
                return
            sleep(wait, self.safe_point)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _serve(self, run: str) -> bool:
        """Have the strategy answer what waits of a run; return whether there was something."""
        retry = ExchangeRetry(self._logger, self.safe_point, RunCheck(self._exchange, run).check)
        time_slice = TimeSlice(self._scheduler, run)
        tasks = TaskQueue(self._exchange, run, self.id, retry, self._logger, time_slice)
        try:
            first = tasks.peek()
            if first is None:
                return False
            note = read_note(retry.call(lambda: self._exchange.note(run)), run, self._exchange.where)
            self._beat_within(note)
            self._strategy.attach(self._context(run, note, tasks, first))
            self._label(tasks)
        except RunGoneError:
            self._logger.warning("the run %s is not in %s any more; leaving it", run, self._exchange.where)
        except DocumentError as error:
            self._scheduler.leave_alone(run, str(error))
            return False
        finally:
            tasks.give_all_back()
            self._count(run, tasks)
        return True

    def _context(self, run: str, note: Note, tasks: TaskQueue, first: Task) -> WorkerContext:
        return WorkerContext(
            note.run_id,
            note.seed,
            self._home / self.id / run,  # of this worker alone: strategies take up what they find there
            self._logger,
            self._name,
            tasks.sent,
            first.has_inputs,
            self.safe_point,
            first.request.step,
        )

    def _label(self, tasks: TaskQueue) -> None:
        try:
            self._strategy.label(tasks, TaskAnswerQueue(tasks))
            tasks.fail_unanswered()
        except (RunGoneError, DocumentError):
            raise
        except BaseException:
            self._is_ending = True  # threads of the strategy may wait for the exchange
            raise

    def _count(self, run: str, tasks: TaskQueue) -> None:
        """Add up what became of tasks."""
        self.answers += tasks.labeled
        self.failures += tasks.failed
        self.unwritten += tasks.unwritten
        if tasks.unwritten and not isinstance(sys.exception(), KeyboardInterrupt):  # else `unwritten` tells
            self._logger.warning("%d answers to the run %s can't be written, and are lost", tasks.unwritten, run)

    def _beat_within(self, note: Note) -> None:
        """Send heartbeats as often as a run expects them."""
        assert self._heartbeat is not None
        most = note.silent_after / _BEATS
        if self._heartbeat.seconds > most:
            self._logger.warning(
                "the run %s takes a worker for lost that says nothing for %g s (silent_after), and --beat is %g; this "
                "worker now says every %.2g s that it lives",
                note.run_id, note.silent_after, self._heartbeat.seconds, most,
            )  # fmt: skip
            self._heartbeat.at_most(most)
