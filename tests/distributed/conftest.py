"""Several processes that work together, in the environment that torchrun gives them, and watched as torchrun does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.ports import reserved_port
from helpers.processes import ForkedProcess, ForkServer

HERE = Path(__file__).parent
sys.path.append(str(HERE))
pytest.register_assert_rewrite("outcomes")


class Processes:
    """The ranks of one start.

    With ``TORCHELASTIC_USE_AGENT_STORE=True``, which is the default, the server holds their store, and `wait` sends
    SIGTERM to all ranks when one has failed: torchrun does both. With ``False`` rank 0 holds the store, and nobody
    watches.

    Attributes
    ----------
    codes
        Their exit codes, once `wait` has returned; negative for a signal.
    texts
        What each wrote, stdout and stderr together.
    """

    def __init__(self, server: ForkServer, count: int, argv: Sequence[str], folder: Path, **environment: str) -> None:
        self.codes: list[int] = []
        self.texts: list[str] = []
        self._watched = environment.setdefault("TORCHELASTIC_USE_AGENT_STORE", "True") == "True"
        self._reserved = contextlib.ExitStack()
        port = server.open_store() if self._watched else self._reserved.enter_context(reserved_port())
        outputs = Path(tempfile.mkdtemp(prefix="outputs-", dir=folder))
        self._outputs = [outputs / str(rank) for rank in range(count)]
        self._ranks: list[ForkedProcess] = []
        for rank, output in enumerate(self._outputs):
            words = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": 0, **environment,
            }  # fmt: skip
            own = server.environment | {name: str(value) for name, value in words.items()}
            self._ranks.append(server.start(argv, folder, output, output, own))

    def wait(self, seconds: float = 100.0) -> Processes:
        """Wait until all have ended; where some have not by then, they are killed, and the test fails."""
        until = time.monotonic() + seconds
        codes, terminated = self._ended(), not self._watched
        while None in codes and time.monotonic() < until:
            if not terminated and any(codes):
                terminated = True
                self.kill(number=signal.SIGTERM)
            time.sleep(0.02)
            codes = self._ended()
        hung = [rank for rank, code in enumerate(codes) if code is None]
        self.kill()
        self.codes = [code for code in codes if code is not None]
        self.texts = [self.said(rank) for rank in range(len(self._ranks))]
        assert not hung, f"ranks {hung} hung:\n" + "\n".join(self.texts)
        return self

    def _ended(self) -> list[int | None]:
        return [process.poll() for process in self._ranks]

    def ends(self, rank: int, seconds: float) -> int | None:
        """Return the exit code of a rank, or None where it hasn't ended after so many seconds."""
        until = time.monotonic() + seconds
        while (code := self._ended()[rank]) is None and time.monotonic() < until:
            time.sleep(0.02)
        return code

    def kill(self, rank: int | None = None, number: int = signal.SIGKILL) -> None:
        """Send a signal to one rank, or to all that still live."""
        for process in self._ranks if rank is None else [self._ranks[rank]]:
            process.send_signal(number)

    def said(self, rank: int) -> str:
        """Return what a rank has written so far."""
        output = self._outputs[rank]
        return output.read_text(errors="replace") if output.exists() else ""

    def end(self) -> None:
        """Leave none alive."""
        self.kill()
        while None in self._ended():
            time.sleep(0.01)
        self._reserved.close()


Start = Callable[..., Processes]


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """The fork server of this test process."""
    server = ForkServer({**os.environ, "OMP_NUM_THREADS": "1"})
    yield server
    server.close()


@pytest.fixture
def start(server: ForkServer, tmp_path: Path) -> Iterator[Start]:
    """Start so many ranks of a python command in the test's folder; those that live at the end are killed."""
    started: list[Processes] = []

    def begin(count: int, *argv: str | Path, **environment: str) -> Processes:
        started.append(Processes(server, count, [str(word) for word in argv], tmp_path, **environment))
        return started[-1]

    yield begin
    for processes in started:
        processes.end()


@pytest.fixture
def script() -> Path:
    """The experiment that the ranks run."""
    return HERE / "experiment.py"


RunExperiment = Callable[..., Processes]


@pytest.fixture
def run_experiment(start: Start, script: Path) -> RunExperiment:
    """Run the experiment, with these options, on so many ranks to its end."""

    def run(count: int, **options: Any) -> Processes:
        return start(count, script, json.dumps(options)).wait()

    return run
