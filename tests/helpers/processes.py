"""Commands and scripts in processes of their own, forked where that makes no difference, since imports take seconds.

A forked process has the same folder, environment, streams and exit code as a new one. It has imported torch, alcore and
some plugins before it begins, its strings have the same hashes as in all others of its server, and the interpreter is
not taken apart at its end. So a test starts a new process (`subprocess`) where it is about imports, signals or kills,
or about what differs from process to process.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).with_name("alcore")
LATE = ("PYTHONPATH", "COLUMNS", "ALCORE_", "PYTEST_", "TORCHELASTIC_", "OMP_NUM_THREADS")
"""Beginnings of the variables that are not read before a program runs: a forked process may have others.

The number of threads is read when torch is imported, and the fork server sets it anew.
"""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without what a developer may have set for python, pytest or alcore."""
    dropped = (
        "ALCORE_", "PYTHON", "PYTEST", "OMP_", "MKL_", "OPENBLAS_", "FORCE_COLOR", "TORCH", "GLOO_", "MLFLOW_",
        "GIT_PYTHON_",
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "COLUMNS": "100", **(extra or {})}


class ForkServer:
    """A process that has imported everything, and forks others; they inherit its environment where none is given."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip

    def start(
        self, argv: Sequence[str], folder: Path, out: Path, err: Path, environment: Mapping[str, str]
    ) -> ForkedProcess:
        """Start what ``python ARGV`` does. The output is appended to the files."""
        task = {"argv": list(argv), "folder": str(folder), "out": str(out), "err": str(err)}
        return ForkedProcess(self, int(self.ask(start={**task, "environment": dict(environment)})))

    def open_store(self) -> int:
        """Hold the store of a group of ranks, as torchrun does; return its port."""
        return int(self.ask(store=True))

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(30)

    def ask(self, **task: Any) -> Any:
        """Have the server do one task; return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


class ForkedProcess:
    """A process of a fork server, with as much of what ``subprocess.Popen`` gives as is used.

    The exit code is kept here, not by the process id: the kernel may give that to another process once it was returned.
    """

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server, self._lock = server, threading.RLock()

    def poll(self) -> int | None:
        return self.wait(0.0)

    def wait(self, timeout: float = 120.0) -> int | None:
        """Return the exit code, negative for a signal, or None if the process lives on after so many seconds."""
        with self._lock:
            if self.returncode is None:
                self.returncode = self._server.ask(wait=self.pid, seconds=timeout)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        with self._lock:
            if self.poll() is None:  # it keeps its id, since nobody has waited for it
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_forked(
    *argv: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run what ``python ARGV`` does, in a forked process, as ``subprocess.run`` with captured output does.

    `env` is added to `clean_environment`. Where it sets a variable that is read earlier than the program runs, as by
    the libraries below torch, the process is a new one.
    """
    words, environment = [str(word) for word in argv], clean_environment(env)
    server = _server()
    if _set_early(environment) != _set_early(server.environment):
        try:
            return subprocess.run(
                [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:  # its output is bytes
            out, err = ((part or b"").decode() for part in (late.output, late.stderr))
            raise subprocess.TimeoutExpired(words, timeout, out, err) from None
    with tempfile.TemporaryDirectory(prefix="forked-") as folder:
        out_file, err_file = Path(folder) / "out", Path(folder) / "err"
        process = server.start(words, Path(cwd), out_file, err_file, environment)
        code = process.wait(timeout)
        if code is None:
            process.kill()
            process.wait(30)
            raise subprocess.TimeoutExpired(words, timeout, out_file.read_text(), err_file.read_text())
        return subprocess.CompletedProcess(words, code, out_file.read_text(), err_file.read_text())


def forked_python(words: Sequence[str], *, stdout: Any, env: Mapping[str, str], **_options: Any) -> ForkedProcess:
    """Do what ``subprocess.Popen([sys.executable, "-P", "-m", ...])`` does, as far as alcore uses that, in a fork."""
    assert words[:2] == [sys.executable, "-P"]
    log = Path.cwd() / stdout.name
    return _server().start(words[2:], Path.cwd(), log, log, env)


@functools.cache
def _server() -> ForkServer:
    """The fork server of this test process, which ends with it."""
    server = ForkServer(clean_environment())
    atexit.register(server.close)
    return server


def _set_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(LATE)}
