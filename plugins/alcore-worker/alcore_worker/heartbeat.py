"""The heartbeat of a worker comes from a process of its own, which a solver in native code can't keep from running."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from alcore.errors import UsageError
from alcore_worker.exchange import AwayError, Exchange
from alcore_worker.opening import open_exchange

_REFUSED = 2  # exit code of the process where the exchange refuses for good
_AGAIN_AFTER = 1.0  # seconds before a process that ended is started again
_LONGEST_END = 2.0  # seconds that the end of a worker waits for an exchange that is away
_STOPPED = set("TtZXx")  # states of a process that is stopped or dead


class Heartbeat:
    """Has a process say that a worker lives, until the worker's process ends or is stopped.

    The process ends when its standard input does, or when its parent is another one. It says nothing while its parent
    is stopped (SIGSTOP). If it ends by itself, which is told once, it is started again.

    Parameters
    ----------
    exchange
        The exchange; its `where` is opened by the process too.
    worker
        The name of the worker.
    seconds
        Between two beats.
    logger
        Told where the process ends.

    Attributes
    ----------
    fault : UsageError or None
        Why the exchange refuses for good.
    """

    def __init__(self, exchange: Exchange, worker: str, seconds: float, logger: logging.Logger) -> None:
        self._exchange, self._worker, self.seconds, self._logger = exchange, worker, seconds, logger
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watching = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self.fault: UsageError | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as error:
            raise UsageError(
                f"the process of the worker's heartbeat can't be started: {error.strerror or error}. Allow this user "
                "one process more, or free some memory."
            ) from error
        self._watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with self._lock:
            if self._process is not None:
                self._process.kill()  # it has nothing to finish
        self._watching.join(_LONGEST_END)

    def at_most(self, seconds: float) -> None:
        """Beat at least so often."""
        with self._lock:
            if seconds < self.seconds:
                self.seconds = seconds
                self._tell()

    def _tell(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, and is started again
                self._process.stdin.write(f"{self.seconds}\n".encode())
                self._process.stdin.flush()

    def _start(self) -> None:
        spec = {"where": self._exchange.where, "worker": self._worker, "seconds": self.seconds, "parent": os.getpid()}
        with self._lock:
            if self._ended.is_set():
                return
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "alcore_worker.heartbeat", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the worker, which gives back what it has while this goes on
            )

    def _starts(self) -> bool:
        """Start the process; return whether that went."""
        try:
            self._start()
        except OSError:  # there is no room for a process now
            return False
        return True

    def _watch(self) -> None:
        told = False
        while not self._ended.is_set():
            try:
                said = self._said_at_its_end()
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker must be heard of
                said = f"{type(error).__name__}: {error}"
            if self._ended.is_set() or self.fault is not None:
                return
            if not told:
                told = True
                self._logger.warning("the process of the heartbeat ended (%s); it is started again", said)
            again = time.monotonic() + _AGAIN_AFTER
            while not self._ended.is_set() and not (time.monotonic() >= again and self._starts()):
                self._beat_here()
                self._ended.wait(min(self.seconds, _AGAIN_AFTER))

    def _said_at_its_end(self) -> str:
        """Wait for the process, and return the last line that it said; note where the exchange refuses."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            self._until_it_beats(process.stdout)
            said = process.stdout.read().decode(errors="replace").strip()
        finally:
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
        code = process.wait()
        if code == _REFUSED:
            self.fault = UsageError(said)
        return said.splitlines()[-1] if said else f"exit code {code}"

    def _until_it_beats(self, output: IO[bytes]) -> None:
        """Beat in this process until the other one does, which has to be loaded first."""
        while self.fault is None and not select.select([output], [], [], self.seconds)[0]:
            self._beat_here()

    def _beat_here(self) -> None:
        try:
            self._exchange.beat(self._worker)
        except AwayError:
            pass
        except UsageError as error:
            self.fault = error


def beat_for(where: str, worker: str, seconds: float, parent: int) -> int:
    """Say that a worker lives as long as its process does; return the exit code.

    Parameters
    ----------
    where
        The exchange.
    worker
        The name of the worker.
    seconds
        Between two beats; a line of the standard input gives another number.
    parent
        The worker's process.
    """
    exchange: Exchange | None = None
    told = False
    while os.getppid() == parent:
        if not is_stopped(parent):
            with contextlib.suppress(AwayError):
                if exchange is None:
                    with contextlib.suppress(UsageError):  # the worker could open it: it is away
                        exchange = open_exchange(where)
                if exchange is not None:
                    try:
                        exchange.beat(worker)
                    except UsageError as error:
                        print(error)
                        return _REFUSED
                    if not told:
                        told = True
                        print(flush=True)  # from now on the worker itself need not
        if select.select([0], [], [], seconds)[0]:
            said = os.read(0, 4096)
            if not said:
                return 0
            seconds = float(said.split()[-1])
    return 0


def is_stopped(process: int) -> bool:
    """Return whether a process is stopped, or dead."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return True
        words = ["ps", "-o", "stat=", "-p", str(process)]
        state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "X"
    return state[0] in _STOPPED


if __name__ == "__main__":
    sys.exit(beat_for(**json.loads(sys.argv[1])))
