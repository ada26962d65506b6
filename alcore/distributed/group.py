"""Several processes that run the same code: exchanges between them, and what happens when one of them fails.

Values travel between CPUs as JSON and raw tensors, never as pickled objects. Whether a process is alive is the business
of torchrun and of the process-group time-out of `torch.distributed`. A rank that fails also reports its error in the
store of the group, so that the others end with that error and not only with a broken connection.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from alcore.distributed.packing import join_tensors, pack, split_tensors, unpack
from alcore.distributed.ranks import Ranks
from alcore.errors import AlcoreError, Interrupted
from alcore.tensors import bytes_of

T = TypeVar("T")
distributed: Any = torch.distributed

_FAILURE, _ALONE, _LEFT = "failure", "alone/", "left/"  # keys in the store
_SLICE = 0.5  # seconds: how long a wait lasts until python looks for signals and for reports of failures
_STORE_SECONDS = 10.0  # a store that hasn't answered by then counts as lost
_REPORT_SECONDS = 2.0  # how long a failed rank's report is waited for, once the connection to it is broken
_LEAVE_SECONDS = 5.0  # how long ranks wait for each other at their end
_AGENT_SECONDS = 3.0  # how long torchrun is given to see the rank that failed first
_MISMATCH = "Detected mismatch between collectives"  # with TORCH_DISTRIBUTED_DEBUG=DETAIL
_TRANSPORTS = ("gloo", "NCCL", "c10d", "Connection closed by peer", "Connection reset by peer")


class RankError(AlcoreError):
    """Another process of the run failed, so this one ends too.

    Attributes
    ----------
    reported : bool
        Whether the other process has reported its error; else its connection was lost.
    """

    def __init__(self, message: str, *, reported: bool = False) -> None:
        super().__init__(message)
        self.reported = reported


class Group(Ranks):
    """Several processes that run the same code.

    Parameters
    ----------
    store
        A `torch.distributed.Store`, where each rank can report a failure whatever the others are doing.
    group
        A `torch.distributed.ProcessGroup` that moves tensors between CPUs.
    rank, size
        Number of this process, and number of processes.
    timeout
        Time-out of `group` in seconds, for messages.

    Notes
    -----
    gloo can't cancel an exchange that has begun. A rank that ends in the middle of one (by ctrl-C, for instance) waits
    some seconds for the others to end theirs, and then ends its process without python's usual clean-up, which would
    last until the time-out.
    """

    def __init__(self, store: Any, group: Any, rank: int, size: int, *, timeout: float = 1800.0) -> None:
        self.rank, self.size, self._timeout = rank, size, timeout
        self._root_store, self._store, self._group = store, store, group
        self._runs = self._times_alone = 0
        self._healthy = True  # no rank is known to have failed
        self._store_is_lost = False
        self._unfinished: Any = None  # an exchange that this rank has left before its end
        self._error: BaseException | None = None
        self._asked_others = -1.0

    def begin(self) -> None:
        """Begin a run; a failure that was reported in an earlier run of these processes no longer counts.

        Raises
        ------
        RankError
            When this rank left an exchange of an earlier run before its end.
        """
        if self._unfinished is not None and not self._unfinished.is_completed():
            raise RankError(
                f"rank {self.rank} left an exchange with the other ranks before its end, so these processes can't "
                "begin another run. Start them again."
            )
        self._runs, self._times_alone, self._healthy = self._runs + 1, 0, True
        self._unfinished = self._error = None
        self._store = distributed.PrefixStore(f"run {self._runs}", self._root_store)

    def by_itself(self) -> Ranks:
        """Return what this rank uses while it works by itself: a single rank that exchanges nothing with others."""
        single = Ranks()
        single.is_detached = True
        return single

    # -- exchanges -----------------------------------------------------------------------------------------

    def share(self, make: Callable[[], T]) -> T:
        """Return on every rank what `make` returns on rank 0; it is called there alone."""
        if not self.main:
            with self._exchange():
                return self._receive()  # type: ignore[no-any-return]
        value = self._report_errors(make)
        header, tensors = self._report_errors(lambda: split_tensors(value))
        with self._exchange():
            self._broadcast(torch.tensor([len(header)]))
            self._broadcast(torch.frombuffer(bytearray(header), dtype=torch.uint8))
            for tensor in tensors:
                self._broadcast(bytes_of(tensor))
        return value

    def _receive(self) -> Any:
        size = torch.zeros(1, dtype=torch.int64)
        self._broadcast(size)
        header = torch.zeros(int(size), dtype=torch.uint8)
        self._broadcast(header)
        return join_tensors(bytes(header.numpy()), self._broadcast)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of ranks, on every rank."""
        packed = self._report_errors(lambda: pack(value))
        with self._exchange():
            sizes = self._all_gather(torch.tensor([len(packed)]))
            largest = torch.zeros(int(max(sizes)), dtype=torch.uint8)
            largest[: len(packed)] = packed
            parts = self._all_gather(largest)
        values = [unpack(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]
        values[self.rank] = value
        return values

    def any(self, flag: bool) -> bool:
        """Return on every rank whether `flag` is true on at least one rank."""
        flags = torch.tensor([int(flag)])
        with self._exchange():
            self._finish(distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=self._group, async_op=True))
        return bool(flags)

    def _broadcast(self, tensor: torch.Tensor) -> None:
        if tensor.numel():
            self._finish(distributed.broadcast(tensor, 0, group=self._group, async_op=True))

    def _all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._finish(distributed.all_gather(parts, tensor, group=self._group, async_op=True))
        return parts

    def _finish(self, work: Any) -> None:
        """Wait for a collective in slices, so that ctrl-C works and another rank's failure is noticed."""
        self._unfinished, finished = work, False
        while not finished:
            try:
                work.wait(datetime.timedelta(seconds=_SLICE))
                finished = True
            except RuntimeError:  # the slice is over, or the collective has failed
                finished = work.is_completed()
            if not finished and (reported := self._reported()) is not None:
                raise reported
        self._unfinished = None
        work.wait()  # raises the error of a collective that has failed

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Explain a broken connection by the failure of another rank."""
        try:
            yield
        except RuntimeError as error:
            raise self._reported(wait=_REPORT_SECONDS) or self._lost(error) from error

    # -- rank 0 alone --------------------------------------------------------------------------------------

    def on_rank_0(self, work: Callable[[], None], interrupted: Callable[[], bool] = lambda: False) -> None:
        """Let rank 0 work, for as long as it takes, while the other ranks wait."""
        self._times_alone += 1
        key = f"{_ALONE}{self._times_alone}"
        if self.main:
            self._report_errors(work)
        with self._exchange():
            if self.main:
                self._ask(lambda: self._store.set(key, ""))
            else:
                self._wait_for(key, interrupted)

    def _wait_for(self, key: str, interrupted: Callable[[], bool]) -> None:
        """Wait until rank 0 has set a key in the store.

        This polls, since a `store.wait` with a time-out writes two warnings to stderr each time. The pause grows with
        the time waited, to half a second.
        """

        def end_if_interrupted() -> None:
            if interrupted():
                error = Interrupted("it was asked to end")
                self.fail(error)
                raise error

        began = time.monotonic()
        while True:
            done, report = self._ask(
                lambda: (self._store.check([key]), self._read_report()), limit=None, meanwhile=end_if_interrupted
            )
            if report is not None:
                raise self._error_of(report)
            if done:
                return
            end_if_interrupted()
            time.sleep(min(_SLICE, max(0.0005, 0.05 * (time.monotonic() - began))))

    def others_ended(self) -> bool:
        """Return whether another rank has reported that it failed or was interrupted; asks at most once a second."""
        if self._healthy and time.monotonic() - self._asked_others >= 1.0:
            self._asked_others = time.monotonic()
            self._reported()
        return not self._healthy

    # -- failures ------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Report to the other ranks, and to torchrun, why this rank ends; the first report of a run stands."""
        self._healthy, self._error = False, error
        if not isinstance(error, RankError | KeyboardInterrupt):
            write_error_file(error)
        if isinstance(error, RankError) and error.reported:
            return
        text = " ".join(f"{type(error).__name__}: {error}".split())
        report = json.dumps({"rank": self.rank, "error": text, "interrupted": isinstance(error, KeyboardInterrupt)})
        with contextlib.suppress(RuntimeError):  # rank 0 held the store and has ended
            self._ask(lambda: self._store.compare_set(_FAILURE, "", report))

    def root_cause(self, error: BaseException) -> BaseException:
        """Return the failure of another rank that made this error happen, else the error itself."""
        if isinstance(error, KeyboardInterrupt):
            return self._reported() or error
        if not isinstance(error, RuntimeError) or isinstance(error, AlcoreError):
            return error
        broken = isinstance(error, distributed.DistError) or any(name in str(error) for name in _TRANSPORTS)
        reported = self._reported(wait=_REPORT_SECONDS if broken else 0.0)
        return reported or (self._lost(error) if broken else error)

    def _report_errors(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            self.fail(error)
            raise

    def _lost(self, error: BaseException) -> RankError:
        self._healthy = False
        text = " ".join(str(error).split())
        if _MISMATCH in text:
            return RankError(
                f"rank {self.rank} of {self.size} exchanges something else than another rank, since a strategy, a "
                f"training loop or a criterion decided differently there; it must decide alike on all ranks. {text}"
            )
        return RankError(
            f"rank {self.rank} of {self.size} lost its connection to the others: {text[:300]}. Another rank was "
            f"killed, or did not come to the same exchange within {self._timeout:g} s "
            "(DistributedManager(timeout=...)); if it decided differently, TORCH_DISTRIBUTED_DEBUG=DETAIL says where. "
            "Start the run again with all ranks; it goes on from what is committed."
        )

    def _reported(self, wait: float = 0.0) -> BaseException | None:
        """Return the failure that another rank has reported, or None; wait up to so many seconds for a report."""
        until = time.monotonic() + wait
        while True:
            try:
                report = self._ask(self._read_report)
            except RuntimeError:  # rank 0 held the store and has ended, or was stopped
                return None
            if report is not None:
                return self._error_of(report)
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)

    def _read_report(self) -> dict[str, Any] | None:
        if not self._store.check([_FAILURE]):
            return None
        report: dict[str, Any] = json.loads(self._store.get(_FAILURE))
        return None if report["rank"] == self.rank else report

    def _error_of(self, report: dict[str, Any]) -> BaseException:
        self._healthy = False
        if report["interrupted"]:
            return Interrupted(f"rank {report['rank']} was asked to end")
        text = f"rank {report['rank']} failed, so that rank {self.rank} ends too: {report['error']}"
        return RankError(text, reported=True)

    def _ask(
        self,
        question: Callable[[], T],
        *,
        limit: float | None = _STORE_SECONDS,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> T:
        """Return what the store answers; wait for it in slices, so that ctrl-C works.

        A call to a store whose process was stopped doesn't return and can't be interrupted, so a thread makes it.

        Raises
        ------
        RuntimeError
            When the store is gone, or hasn't answered after `limit` seconds.
        """
        if self._store_is_lost:
            raise RuntimeError("the store of the process group doesn't answer")
        answers: list[T] = []
        errors: list[RuntimeError] = []

        def ask() -> None:
            try:
                answers.append(question())
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        until = None if limit is None else time.monotonic() + limit
        while thread.is_alive():
            thread.join(_SLICE)
            if thread.is_alive():
                meanwhile()
                if until is not None and time.monotonic() >= until:
                    self._store_is_lost = True
                    raise RuntimeError("the store of the process group doesn't answer")
        if errors:
            raise errors[0]
        return answers[0]

    # -- the end -------------------------------------------------------------------------------------------

    def leave(self, end: Callable[[], None]) -> None:
        """End the group by `end`; where no rank has failed, all ranks do so together.

        Parameters
        ----------
        end
            Ends the process groups.
        """
        holds_store = self.main and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        with contextlib.suppress(RuntimeError):
            self._ask(lambda: self._root_store.set(f"{_LEFT}{self.rank}", ""))
            if self._healthy or holds_store:  # others may still be in their last exchange, or read a report
                self._wait_for_others()
        if isinstance(self._error, RankError) and os.environ.get("TORCHELASTIC_ERROR_FILE"):
            time.sleep(_AGENT_SECONDS)  # torchrun ends all when it sees the rank that failed, and shows its error
            write_error_file(self._error)
        if self._unfinished is not None:
            self._end_process_unless_finished()
        with contextlib.suppress(RuntimeError):
            end()

    def _wait_for_others(self) -> None:
        until = time.monotonic() + _LEAVE_SECONDS
        keys = [f"{_LEFT}{rank}" for rank in range(self.size)]
        while not self._ask(lambda: self._root_store.check(keys)) and time.monotonic() < until:
            time.sleep(0.01)

    def _end_process_unless_finished(self) -> None:
        until = time.monotonic() + _LEAVE_SECONDS
        while not self._unfinished.is_completed():
            if time.monotonic() >= until:
                logging.shutdown()
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError, AttributeError):
                        stream.flush()
                os._exit(130 if isinstance(self._error, KeyboardInterrupt) else 1)
            time.sleep(0.05)


def write_error_file(error: BaseException) -> None:
    """Write an error to the file that torchrun shows when a process fails; without torchrun nothing is done."""
    if not os.environ.get("TORCHELASTIC_ERROR_FILE"):
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    trace = error.__traceback__
    try:
        raise error  # torch writes the traceback of the error that is being handled
    except BaseException:  # noqa: BLE001
        with contextlib.suppress(OSError):
            get_error_handler().record_exception(error)
    finally:
        error.__traceback__ = trace
