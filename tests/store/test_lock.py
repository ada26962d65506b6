"""One writer a run, however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alcore.errors import RunLockedError
from alcore.store.files import StorageError
from alcore.store.lock import RunLock, is_locked

Start = Callable[..., "subprocess.Popen[str]"]

_HOLD = """
import sys
from pathlib import Path
from alcore.store.files import StorageError
from alcore.store.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
_FORK = """
import os, sys
from pathlib import Path
from alcore.store.files import StorageError
from alcore.store.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
if os.fork() == 0:
    print(f"child {os.getpid()}", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def begin(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_second_process_is_told_who_holds_the_lock(tmp_path: Path, start: Start) -> None:
    holder = start(_HOLD)
    assert holder.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    with pytest.raises(RunLockedError, match=rf"run {tmp_path.name} is being written by process {holder.pid} on "):
        RunLock(tmp_path)
    holder.communicate("")
    assert not is_locked(tmp_path)
    RunLock(tmp_path).release()


def test_sigkill_frees_the_lock(tmp_path: Path, start: Start) -> None:
    holder = start(_HOLD)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    RunLock(tmp_path).release()


def test_forked_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path, start: Start) -> None:
    parent = start(_FORK)
    child = int(parent.stdout.readline().split()[1])
    assert is_locked(tmp_path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    try:
        os.kill(child, 0)  # it is alive
        assert not is_locked(tmp_path)
        RunLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_locks_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    first = RunLock(tmp_path)
    with pytest.raises(RunLockedError, match=f"process {os.getpid()} on "):
        RunLock(tmp_path)
    assert is_locked(tmp_path)
    first.release()
    second = RunLock(tmp_path)
    first.release()  # once more does nothing, not even to the next holder
    assert is_locked(tmp_path)
    second.release()
    assert not is_locked(tmp_path)


def test_refused_lock_leaves_no_descriptor_open(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(RunLockedError):
        RunLock(tmp_path)
    is_locked(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    lock.release()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


def test_folder_without_a_lock_file_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lock_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    lock = RunLock(tmp_path / "hidden")
    (tmp_path / "hidden").rename(tmp_path / "run")
    assert is_locked(tmp_path / "run")
    lock.release()


def test_program_that_is_started_inherits_no_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=False,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        lock.release()
        assert not is_locked(tmp_path)
        other.communicate("\n")


def test_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(StorageError, match="lock can't be written"):
        RunLock(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"


def test_reader_that_looks_at_the_lock_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    descriptor = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.03, os.close, [descriptor]).start()
    RunLock(tmp_path).release()
