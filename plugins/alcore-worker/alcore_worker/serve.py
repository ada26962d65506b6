"""A worker: claims tasks, has a label strategy answer them, and says that it lives."""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import logging
import math
import os
import queue
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from alcore.errors import Interrupted, UsageError, is_importing
from alcore.pools import as_sample_id
from alcore.protocols import Failed, Label, LabelingProgress, Request
from alcore_worker import documents
from alcore_worker.context import Sent, WorkerContext
from alcore_worker.ending import Calls, through
from alcore_worker.exchange import AwayError, Claim, Exchange
from alcore_worker.heartbeat import Heartbeat
from alcore_worker.names import DocumentError, Note, read_note, request_of
from alcore_worker.patience import Patience, sleep

_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between two looks for work, doubled while there is none
_GONE_AFTER = 30.0  # seconds that a driver has to make its run known again
_ATTENDED_WITHIN = 60.0  # seconds in which a driver that waits for labels is heard of
_TURN, _TURN_OF_UNATTENDED = 60.0, 2.0  # seconds after which a worker looks whether another run waits
_BEATS = 3  # within `silent_after`
_GATHER = 0.05  # seconds within which answers are written together
_AHEAD = 0.1  # seconds of work that are claimed ahead, as fast as it went last
_KEPT_AHEAD = 1.0  # seconds after which what was claimed ahead is given back
_SOON = 0.02  # seconds until a signal is sent again
_LEFT_ALONE = 60.0  # seconds after which a run that could not be served is looked at again
_AT_ONCE = 256  # claims or answers in one call
_LONGEST_BEAT = 86400.0  # seconds


def check_remote(name: str, strategy: Any) -> None:
    """Raise `UsageError` unless a label strategy, or its class, says that it works without a Driver."""
    if getattr(strategy, "remote", False) is not True:
        raise UsageError(
            f"the label strategy {name!r} can't work in a worker: it needs the run's Driver, since it doesn't declare "
            "remote = True. Use one that does, such as `function` or `command`, or label where the run is."
        )


class _RunGoneError(Exception):
    """The exchange can be reached, and has lost the run that is worked for."""


class _Returns:
    """Claims that are given back, each until the exchange has taken it: as long as this worker lives, nobody else does.

    Parameters
    ----------
    exchange
        Where they go.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._owed: dict[str, list[Claim]] = {}  # by run

    def give_back(self, run: str, claims: Iterable[Claim]) -> bool:
        """Let claims be claimed again, now or when `settle` is called; tell whether it was now."""
        self._owed.setdefault(run, []).extend(claims)
        with contextlib.suppress(AwayError, DocumentError):
            self.settle(run)
        return run not in self._owed

    def settle(self, run: str) -> None:
        """Give back what is owed to a run; `AwayError` where that does not go."""
        if claims := self._owed.get(run):
            self._exchange.give_back(run, claims)
        self._owed.pop(run, None)

    def settle_all(self) -> None:
        """Give back what is owed to runs that are known, as far as it goes."""
        if not self._owed:
            return
        with contextlib.suppress(AwayError):
            for gone in self._owed.keys() - self._exchange.runs():
                del self._owed[gone]
            for run in list(self._owed):
                self.give_back(run, ())


class _Task(NamedTuple):
    request: Request
    claim: Claim
    sample: int | None
    sent: Sent | None


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
        Seconds between two beats of the heart; fewer where a run takes a worker for lost before the third one.
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
        self._calls = Calls(lambda: self._is_ending, exchange.where)
        self._to_beat, self._exchange = exchange, through(self._calls, exchange)
        self._heart: Heartbeat | None = None
        self._told: set[str] = set()  # what was said of runs
        self._left_alone: dict[str, float] = {}  # until when, of runs that can't be served
        self._patience = Patience(self._logger, self.safe_point)
        self._returns = _Returns(self._exchange)
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
        if self._heart is not None and self._heart.fault is not None:
            raise self._heart.fault

    def run(self) -> None:
        """Work until nothing is left, if that is when to end; else until it is interrupted.

        Raises
        ------
        KeyboardInterrupt
            If it was interrupted. What it had claimed and not answered was given back if `has_left`.
        """
        with self._signals(), contextlib.closing(self._calls):
            self._patience.call(lambda: self._exchange.beat(self.id))
            self.has_come = True
            try:
                with Heartbeat(self._to_beat, self.id, self._beat, self._logger) as self._heart:
                    self._work()
            finally:
                self._is_ending = True
                with contextlib.suppress(AwayError):
                    self._exchange.leave(self.id)
                    self.has_left = True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have SIGINT and SIGTERM end the worker, where it is in the main thread and nobody else handles them."""
        in_import = is_importing(inspect.currentframe())  # the whole program, and not only what the strategy does

        def end(number: int, frame: FrameType | None) -> None:
            del number
            was_ending = self._is_ending
            self._is_ending = True  # first: threads of the strategy, which it waits for, may wait for the exchange
            # what is raised in an import may become another error there, which would be taken for a failed label
            if was_ending or in_import or not is_importing(frame):
                raise KeyboardInterrupt

        before = {}
        if threading.current_thread() is threading.main_thread():
            usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            handlers = {one: signal.getsignal(one) for one in usual}
            before = {
                one: handler for one, handler in handlers.items() if self._handles_signals or handler == usual[one]
            }
        report = sys.unraisablehook

        def again(unraisable: Any) -> None:
            """Send the signal again where what it raised met a finalizer, which drops it: the strategy would go on."""
            if not (self._is_ending and before and issubclass(unraisable.exc_type, KeyboardInterrupt)):
                report(unraisable)
            else:  # soon, since what is raised in this hook is dropped too
                later = threading.Timer(_SOON, signal.pthread_kill, (threading.main_thread().ident, next(iter(before))))
                later.daemon = True
                later.start()

        sys.unraisablehook = again
        for one in before:
            signal.signal(one, end)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            sys.unraisablehook = report

    def _work(self) -> None:
        wait, since = _SHORTEST_WAIT, time.monotonic()
        last = ""
        while True:
            served = False
            self._returns.settle_all()
            for run in self._in_turn(last):
                if self._serve(run):
                    last, served = run, True
                    break
            if served:
                wait, since = _SHORTEST_WAIT, time.monotonic()
                continue
            if self._once or (self._idle is not None and time.monotonic() - since > self._idle):
                return
            sleep(wait, self.safe_point)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _in_turn(self, last: str) -> list[str]:
        """Return the runs, those whose driver lives first, and of these the one after the last first."""
        runs = self._runs()
        attended = {run: self._is_attended(run) for run in runs} if len(runs) > 1 else dict.fromkeys(runs, True)
        return sorted(runs, key=lambda one: (not attended[one], one <= last, one))

    def _runs(self) -> list[str]:
        """Return the runs, but for those that could not be served a moment ago."""
        now = time.monotonic()
        runs = [one for one in self._patience.call(self._exchange.runs) if now >= self._left_alone.get(one, 0.0)]
        faults = {one: self._patience.call(functools.partial(self._exchange.fault_of, one)) for one in runs}
        for run, fault in faults.items():
            if fault is not None:
                self._leave_alone(run, fault)
        return [one for one in runs if faults[one] is None]

    def _leave_alone(self, run: str, fault: str) -> None:
        """Say once why a run can't be served, and look at it again after a while."""
        self._tell_once(run, f"the run {run} can't be served, and is left alone: {fault}")
        self._left_alone[run] = time.monotonic() + _LEFT_ALONE

    def _is_attended(self, run: str) -> bool:
        return self._patience.call(lambda: self._exchange.is_attended(run, _ATTENDED_WITHIN))

    def _others_wait(self, run: str) -> bool:
        """Tell whether another run waits whose driver lives."""
        others = [one for one in self._runs() if one != run and self._is_attended(one)]
        with contextlib.suppress(DocumentError):  # one that can't be served, which is told when its turn comes
            return any(self._patience.call(functools.partial(self._exchange.waiting, one)) for one in others)
        return True

    def _serve(self, run: str) -> bool:
        """Have the strategy answer what waits of a run; return whether there was something."""
        presence = _Presence(self._exchange, run)
        patience = Patience(self._logger, self.safe_point, presence.check)
        turn = _Turn(lambda: self._others_wait(run), lambda: self._is_attended(run))
        claims = _Claims(self._exchange, run, self.id, patience, self._logger, turn, self._returns)
        try:
            if claims.empty():
                return False
            note = read_note(patience.call(lambda: self._exchange.note(run)), run, self._exchange.where)
            self._keep_up_with(note)
            context = WorkerContext(
                note.run_id,
                note.seed,
                self._home / self.id / run,  # of this worker alone: strategies take up what they find there
                self._logger,
                self._name,
                claims.sent,
                claims.has_inputs,
                self.safe_point,
                claims.step,
            )
            self._strategy.attach(context)
            with claims.keeping():
                self._label(claims)
        except _RunGoneError:
            self._logger.warning("the run %s is not in %s any more; leaving it", run, self._exchange.where)
        except DocumentError as error:
            self._leave_alone(run, str(error))
            return False
        finally:
            claims.give_all_back()
            self.unwritten += claims.unwritten
            if claims.unwritten and not isinstance(sys.exception(), KeyboardInterrupt):  # of which `unwritten` tells
                self._logger.warning("%d answers to the run %s can't be written, and are lost", claims.unwritten, run)
            self.answers += claims.labeled
            self.failures += claims.failed
        return True

    def _label(self, claims: _Claims) -> None:
        try:
            self._strategy.label(claims, _Answers(claims))
            claims.fail_unanswered()
            claims.flush()
        except (_RunGoneError, DocumentError):
            raise
        except BaseException:
            # threads of the strategy that wait for the exchange hold the lock of what was claimed
            self._is_ending = True
            raise

    def _keep_up_with(self, note: Note) -> None:
        """Beat as often as a run expects it."""
        assert self._heart is not None
        most = note.silent_after / _BEATS
        if self._heart.seconds > most:
            self._tell_once(
                f"{note.run_id} {note.silent_after}",
                f"the run {note.run_id} takes a worker for lost that says nothing for {note.silent_after:g} s "
                f"(silent_after), and --beat is {self._heart.seconds:g}; this worker now says every {most:.2g} s that "
                "it lives",
            )
            self._heart.at_most(most)

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._logger.warning("%s", text)


class _Turn:
    """Ends the work for a run where another one waits, after some time, or soon if the run's driver doesn't live.

    Parameters
    ----------
    others_wait
        Tells whether another run waits.
    is_attended
        Tells whether the run's driver lives.
    """

    def __init__(self, others_wait: Callable[[], bool], is_attended: Callable[[], bool]) -> None:
        self._others_wait, self._is_attended = others_wait, is_attended
        self._began = self._looked = time.monotonic()
        self._is_over = False

    def is_over(self) -> bool:
        """Tell whether to end; asked before more is claimed."""
        now = time.monotonic()
        if not self._is_over and now - self._looked > _TURN_OF_UNATTENDED:
            self._looked = now
            if now - self._began > _TURN or not self._is_attended():
                self._is_over = self._others_wait()
        return self._is_over


class _Presence:
    """Ends the work for a run that was removed from the exchange, or damaged: it would be waited for without end.

    Parameters
    ----------
    exchange, run
        What is looked for, and where.
    """

    def __init__(self, exchange: Exchange, run: str) -> None:
        self._exchange, self._run = exchange, run
        self._gone_since: float | None = None

    def check(self) -> None:
        """Raise where the exchange is there, and the run has not been whole for long.

        Raises
        ------
        AwayError
            If the exchange is away.
        _RunGoneError
            If the run is not there.
        DocumentError
            If it can't be served.
        """
        is_there, fault = self._run in self._exchange.runs(), self._exchange.fault_of(self._run)
        if is_there and fault is None:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = time.monotonic()
        elif time.monotonic() - self._gone_since > _GONE_AFTER:
            raise _RunGoneError if fault is None else DocumentError(fault)


class _Claims:
    """The query queue of a worker: it claims when the strategy takes something out.

    Parameters
    ----------
    exchange, run, worker
        What is claimed, where and by whom.
    patience
        Makes calls of the exchange.
    logger
        Told what can't be read.
    turn
        Says when nothing more is to be claimed.
    returns
        Gives claims back.

    Attributes
    ----------
    sent : dict of int to Sent
        What was sent of the samples in hand.
    has_inputs : bool
        Whether that are inputs, too.
    step : int
        Of the first task.
    labeled, failed : int
        How many answers there were.
    """

    def __init__(
        self,
        exchange: Exchange,
        run: str,
        worker: str,
        patience: Patience,
        logger: logging.Logger,
        turn: _Turn,
        returns: _Returns,
    ) -> None:
        self._exchange, self._run, self._worker = exchange, run, worker
        self._patience, self._logger, self._turn, self._returns = patience, logger, turn, returns
        self._lock = threading.RLock()
        self._ahead: collections.deque[_Task] = collections.deque()  # claimed, and not taken out yet
        self._out: dict[str, _Task] = {}  # taken out, and not answered yet, by request
        self._look_next, self._wait = 0.0, _SHORTEST_WAIT
        self._claimed_at, self._taken, self._taken_at = time.monotonic(), 0, math.inf
        self._box: list[tuple[Claim, bytes]] = []  # answers that are not written yet
        self._labels_in_box = 0
        self._flushed_at = -math.inf
        self._wake, self._ended = threading.Event(), threading.Event()
        self._fault: BaseException | None = None  # of the thread that writes what was left in the box
        self._tasks_of: collections.Counter[int] = collections.Counter()  # how many of those in hand are of a sample
        self.sent: dict[int, Sent] = {}
        self.has_inputs, self.step = False, 0
        self.labeled = self.failed = 0

    # -- what the strategy calls as a query queue ------------------------------------------------------

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        with self._lock:
            while not self._ahead and self._claim(1):
                pass  # none of those that were claimed could be read
            return not self._ahead

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Write answers that wait for others, and give back what was claimed ahead for too long, while this lasts."""
        keeper = threading.Thread(target=self._keep, name="answers", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._ended.set()
            self._wake.set()
            keeper.join()

    def _keep(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_KEPT_AHEAD if self._ahead else None)
            self._wake.clear()
            if self._ended.wait(_GATHER):
                return
            if self._box and time.monotonic() - self._flushed_at < _GATHER:  # the strategy goes on putting
                self._wake.set()
                continue
            try:
                with self._lock:
                    self._write_box()
                    if self._ahead and time.monotonic() - self._taken_at > _KEPT_AHEAD:
                        self._give_back(self._ahead)
                        self._ahead.clear()
                    self._returns.settle(self._run)
            except AwayError:  # the strategy waits where it puts or takes next; until then this looks again
                self._ended.wait(_LONGEST_WAIT)
                self._wake.set()
            except BaseException as error:  # noqa: BLE001 - raised where the strategy puts or takes next
                self._fault = error
                return

    def get_many(self, n: int) -> list[Request]:
        """Take out up to `n` requests; none when nothing waits."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if len(self._ahead) < n:
                self._claim(n - len(self._ahead))
            found = [self._ahead.popleft() for _ in range(min(n, len(self._ahead)))]
            self._out |= {one.request.id: one for one in found}
            self._taken += len(found)
            self._taken_at = time.monotonic()
            if self._ahead:
                self._wake.set()
            return [one.request for one in found]

    def get_request(self) -> Request:
        """Take out the next request; `queue.Empty` when nothing waits."""
        for request in self.get_many(1):
            return request
        raise queue.Empty

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out the next item; `queue.Empty` when nothing waits."""
        del block, timeout
        return self.get_request().item

    def get_nowait(self) -> Any:
        """Take out the next item."""
        return self.get()

    def give_back(self, request: Any) -> None:
        """Let a request, or an item, be claimed again, by any worker."""
        with self._lock:
            task = self._find(request)
            self._give_back([self._out.pop(task.request.id)])

    def recalled(self) -> list[Request]:
        """Return nothing: the run takes back what no worker has claimed."""
        return []

    def qsize(self) -> int:
        """Return about how many requests wait."""
        return len(self._ahead) + self._patience.call(lambda: self._exchange.waiting(self._run))

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Refuse it: a worker asks for nothing."""
        del item, block, timeout, score
        raise UsageError("a worker can't ask for labels; it answers what a run asks for.")

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Refuse them: a worker asks for nothing."""
        del scores
        self.put(items)

    # -- claims and answers ----------------------------------------------------------------------------

    def _claim(self, most: int) -> bool:
        """Claim so many tasks, or more where they go fast; return whether there were any."""
        now = time.monotonic()
        if now < self._look_next or self._turn.is_over():
            return False
        in_a_while = int(self._taken * _AHEAD / max(now - self._claimed_at, 1e-6))
        self._claimed_at, self._taken = now, 0
        most = max(most, min(in_a_while, _AT_ONCE))
        self._patience.call(lambda: self._returns.settle(self._run))  # first: what is claimed anew is not to go back
        claims = self._patience.call(lambda: self._exchange.claim(self._run, self._worker, most))
        if claims:
            self._wait = _SHORTEST_WAIT
        else:
            self._look_next, self._wait = time.monotonic() + self._wait, min(2 * self._wait, _LONGEST_WAIT)
        for claim in claims:
            if not claim.name:
                self._logger.warning("%s of the run %s; it was set aside", claim.fault, self._run)
                continue
            try:
                task, has_inputs = self._read(claim)
            except DocumentError as error:
                self._logger.warning("task %s: %s", claim.name, error)
                reason = f"a worker can't read it: {error}"
                self._box.append(
                    (claim, self._written(claim, {"kind": "infrastructure", "reason": reason, "cost": 0.0}))
                )
                self._wake.set()
                continue
            if not self._ahead and not self._out:
                self.has_inputs, self.step = has_inputs, task.request.step
            self._ahead.append(task)
            if task.sample is not None and task.sent is not None:
                self.sent[task.sample] = task.sent
                self._tasks_of[task.sample] += 1
        return bool(claims)

    def _read(self, claim: Claim) -> tuple[_Task, bool]:
        if claim.fault:
            raise DocumentError(claim.fault)
        content = documents.read(
            claim.document, lambda digest: self._patience.call(lambda: self._exchange.get_blob(self._run, digest))
        )
        step, ordinal, request_id, attempt = request_of(claim.name)
        slot, sample = content.get("slot"), content.get("sample")
        if type(slot) is not int or not (sample is None or (type(sample) is int and sample >= 0)):
            raise DocumentError("its sample or slot is damaged")
        has_inputs = content.get("has_inputs") is True
        if sample is None:
            request = Request(request_id, step, ordinal, content.get("item"), attempt, slot)
            return _Task(request, claim, None, None), has_inputs
        values, cost = content.get("values"), content.get("cost")
        if not isinstance(values, dict) or not (cost is None or isinstance(cost, float)):
            raise DocumentError("its values or cost are damaged")
        request = Request(request_id, step, ordinal, sample, attempt, slot)
        return _Task(request, claim, sample, Sent(values, content.get("input"), cost)), has_inputs

    def deliver(self, answers: Iterable[Any]) -> None:
        """Answer the requests that answers name.

        They are durable when this returns, or soon: those that come at once after others are written together, when
        the next ones come, or after a moment.
        """
        with self._lock:
            if self._fault is not None:
                raise self._fault
            for answer in answers:
                self._deliver(answer)
            if len(self._box) >= _AT_ONCE or time.monotonic() - self._flushed_at > _GATHER:
                self.flush()
            elif not self._wake.is_set():
                self._wake.set()

    def _deliver(self, answer: Any) -> None:
        task = self._find(answer.item) if isinstance(answer, Label | Failed) else self._oldest()
        content = _content(answer)
        try:
            text = self._written(task.claim, content)
        except DocumentError as error:
            reason = f"its label can't be sent: {error}"
            content = {"kind": "infrastructure", "reason": reason, "cost": content["cost"]}
            text = self._written(task.claim, content)
        self._box.append((task.claim, text))
        self._out.pop(task.request.id, None)
        self._forget(task)
        self._labels_in_box += content["kind"] == "label"

    def _written(self, claim: Claim, content: Mapping[str, Any]) -> bytes:
        def put_blob(raw: bytes) -> str:
            return self._patience.call(lambda: self._exchange.put_blob(self._run, raw))

        return documents.write(f"answer to {claim.name}", content, put_blob)

    def flush(self) -> None:
        """Write the answers that are not written yet."""
        with self._lock:
            self._patience.call(self._write_box)
            self._flushed_at = time.monotonic()

    def _write_box(self) -> None:
        if self._box:
            self._exchange.answer(self._run, self._box)
            self._empty_box()

    def _empty_box(self) -> None:
        self.labeled += self._labels_in_box
        self.failed += len(self._box) - self._labels_in_box
        self._box, self._labels_in_box = [], 0

    def _find(self, item: Any) -> _Task:
        """Return the task that is out of what an answer names."""
        if isinstance(item, Request) and item.id in self._out:
            return self._out[item.id]
        sample = as_sample_id(item)
        for task in self._out.values():
            if task.request.item is item or (sample is not None and task.sample == sample):
                return task
        shown = item.id if isinstance(item, Request) else item
        raise UsageError(f"an answer names {shown!r:.100}, which this worker didn't take, or has answered.")

    def _oldest(self) -> _Task:
        for task in self._out.values():
            return task
        raise UsageError("there is an answer, and no request that was taken and has none.")

    def progress(self) -> LabelingProgress:
        """Return how many requests were taken, and how many were answered."""
        done = self.labeled + self.failed + len(self._box)
        return LabelingProgress(done + len(self._out) + len(self._ahead), done)

    @property
    def unwritten(self) -> int:
        """How many answers are not written."""
        return len(self._box)

    def fail_unanswered(self) -> None:
        """Report what the strategy took and returned without."""
        for task in list(self._out.values()):
            reason = "the label strategy returned without an answer to it"
            self.deliver([Failed(task.request, reason, "infrastructure")])

    def give_all_back(self) -> None:
        """Write what is answered, and let everything else be claimed again."""
        with self._lock:
            with contextlib.suppress(AwayError, DocumentError):
                self._write_box()
            self._give_back([*self._out.values(), *self._ahead])
            self._returns.give_back(self._run, [claim for claim, _ in self._box])  # their answers are lost
            self._out.clear()
            self._ahead.clear()

    def _give_back(self, tasks: Iterable[_Task]) -> None:
        claims = []
        for task in tasks:
            self._forget(task)
            claims.append(task.claim)
        if not self._returns.give_back(self._run, claims):
            self._wake.set()

    def _forget(self, task: _Task) -> None:
        if task.sample is not None:
            self._tasks_of[task.sample] -= 1
            if self._tasks_of[task.sample] <= 0:
                del self._tasks_of[task.sample]
                self.sent.pop(task.sample, None)


class _Answers:
    """The label queue of a worker."""

    def __init__(self, claims: _Claims) -> None:
        self._claims = claims

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Deliver one answer, from any thread."""
        del block, timeout
        self._claims.deliver([item])

    def put_nowait(self, item: Any) -> None:
        """Deliver one answer."""
        self._claims.deliver([item])

    def put_many(self, items: Iterable[Any]) -> None:
        """Deliver several answers."""
        self._claims.deliver(items)

    def qsize(self) -> int:
        """Return how many answers there were."""
        return self._claims.progress().answered

    def empty(self) -> bool:
        """Tell whether there was none."""
        return not self.qsize()

    def submitted(self, request: Request, handle: str) -> None:
        """Do nothing: a worker doesn't come back to a job that it started."""

    def progress(self) -> LabelingProgress:
        """Return how many requests were taken, and how many were answered."""
        return self._claims.progress()


def _content(answer: Any) -> dict[str, Any]:
    """Return an answer as it is sent."""
    if isinstance(answer, Failed):
        return {"kind": answer.kind, "reason": str(answer.reason), "cost": answer.cost}
    if isinstance(answer, Label):
        cost = None if answer.cost is None else float(answer.cost)
        return {"kind": "label", "value": answer.value, "source": str(answer.source), "cost": cost}
    return {"kind": "label", "value": answer, "source": "", "cost": None}
