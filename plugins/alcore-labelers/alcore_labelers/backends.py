"""Where calls of a function run: in threads, in worker processes, or in an executor of the user's."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, Protocol

import pebble

from alcore_labelers.calls import CallOutcome, FunctionCall, Inputs, begin_worker, call_in_worker


class BrokenWorkersError(Exception):
    """All workers have ended; calls that they had not finished have no outcome."""


class Backend(Protocol):
    """Runs calls somewhere else than in the thread that asks for them."""

    ends_calls: bool
    """Whether it ends a call by itself when its time is over."""

    def submit(self, inputs: Inputs) -> Future[list[CallOutcome]]:
        """Begin a call, or let it wait for a free worker."""

    def is_broken(self) -> bool:
        """Return whether it can't run calls any more, so that those that it holds will never be done."""

    def close(self) -> None:
        """End the workers; no call is under way."""

    def stop(self) -> None:
        """End the workers, and the calls that are under way, where that is possible."""


class ThreadBackend:
    """Threads of this process. A call can't be ended; a thread that hangs is left to itself.

    Parameters
    ----------
    call
        What is called.
    workers
        How many threads.
    """

    ends_calls = False

    def __init__(self, call: FunctionCall, workers: int) -> None:
        self._call, self._pool = call, pebble.ThreadPool(max_workers=workers)

    def submit(self, inputs: Inputs) -> Future[list[CallOutcome]]:
        """Begin a call, or let it wait for a free thread."""
        return self._pool.schedule(self._call, args=(copy.deepcopy(inputs),))  # the function may write to them

    def is_broken(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """End the threads."""
        self._pool.close()  # type: ignore[no-untyped-call]
        self._pool.join()

    def stop(self) -> None:
        """Let the threads end after the call that they are in; nobody waits for them."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        threading.Thread(target=self._pool.join, daemon=True).start()


class ProcessBackend:
    """Worker processes. A call that crashes or hangs costs its own item alone, and its worker is replaced.

    Parameters
    ----------
    call
        What is called; the workers are given a pickled copy.
    workers
        How many processes.
    context
        How they are started.
    timeout
        Seconds after which a call is ended, with the worker and what that has started; None sets no limit.
    """

    ends_calls = True

    def __init__(self, call: FunctionCall, workers: int, context: str, timeout: float | None) -> None:
        self._timeout = timeout
        self._pool = pebble.ProcessPool(
            max_workers=workers,
            initializer=begin_worker,
            initargs=(call,),
            context=multiprocessing.get_context(context),
        )

    def submit(self, inputs: Inputs) -> Future[list[CallOutcome]]:
        """Begin a call, or let it wait for a free process."""
        try:
            return self._pool.schedule(call_in_worker, args=(inputs,), timeout=self._timeout)
        except RuntimeError as error:  # the pool noticed it before this did
            raise BrokenWorkersError(str(error)) from error

    def is_broken(self) -> bool:
        """Return whether the pool has given up."""
        return not self._pool.active

    def close(self) -> None:
        """End the processes."""
        self._pool.close()  # type: ignore[no-untyped-call]
        self._pool.join()

    def stop(self) -> None:
        """End the processes at once, with what they have started."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


class ExecutorBackend:
    """An executor that the user has made, and ends. A call in it can't be ended.

    Parameters
    ----------
    call
        What is called; an executor of other processes or machines pickles it.
    executor
        The executor.
    """

    ends_calls = False

    def __init__(self, call: FunctionCall, executor: Executor) -> None:
        self._call, self._executor = call, executor

    def submit(self, inputs: Inputs) -> Future[list[CallOutcome]]:
        """Hand a call over."""
        return self._executor.submit(self._call, copy.deepcopy(inputs))

    def is_broken(self) -> bool:
        """Return False: its futures say so."""
        return False

    def close(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


MakeBackend = Callable[[], Backend]


def outcomes_of(
    future: Future[list[CallOutcome]], size: int, timeout: float | None, seconds: float
) -> list[CallOutcome]:
    """Return the outcomes of a call that is done, also where its worker did not live to return them.

    Parameters
    ----------
    future
        The call.
    size
        The number of its items.
    timeout
        The limit that it ran under.
    seconds
        For how long it has been under way, for a call that does not say so.

    Raises
    ------
    BrokenWorkersError
        If all workers have ended, so that nothing is known of the call.
    """
    try:
        return future.result()
    except pebble.ProcessExpired as error:
        _end_group(error.pid)
        lost = CallOutcome("infrastructure", reason=f"its worker process {_end_of(error.exitcode)}", again=True)
    except TimeoutError:
        lost = timed_out(timeout)
    except BrokenExecutor as error:
        raise BrokenWorkersError(f"{type(error).__name__}: {error}") from error
    except BaseException as error:  # noqa: BLE001 - of an executor of whatever kind, or KeyboardInterrupt of a worker
        lost = CallOutcome("infrastructure", reason=f"{type(error).__name__}: {error}", again=True)
    each: dict[str, Any] = {"kind": lost.kind, "reason": lost.reason, "again": lost.again}
    return [CallOutcome(**each, seconds=seconds / size)] * size


def timed_out(timeout: float | None) -> CallOutcome:
    """Return the outcome of a call whose time is over."""
    return CallOutcome("timeout", reason=f"it took longer than {timeout:g} s" if timeout else "its time was over")


def _end_of(code: int | None) -> str:
    """Say how a process ended, by its exit code."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _end_group(pid: int | None) -> None:
    """End the programs that a worker process had started, which has ended itself."""
    if pid and hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
