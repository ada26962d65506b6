"""One writer a run: a lock that the operating system drops when its holder ends, however that happens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from alcore.errors import RunLockedError
from alcore.store.files import cant_write

_held: set[int] = set()
_LOOKS, _LOOK = 20, 0.01  # how often a lock that is taken is tried again, and after how many seconds


def _close_in_child() -> None:
    """Close the locks that a forked child inherited: a data-loader worker may outlive its killed parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _take(descriptor: int) -> None:
    """Take the lock; readers, who look whether it is free, may have it for a moment."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_LOOK)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """An exclusive lock on a run directory, held until `release`.

    Parameters
    ----------
    folder
        The run directory; the lock is its file ``lock``.

    Raises
    ------
    RunLockedError
        If another process holds it, saying which.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise cant_write(folder / "lock", error) from error
        try:
            _take(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            raise held_error(folder) from error
        _held.add(self._descriptor)
        try:
            os.ftruncate(self._descriptor, 0)
            self._holder = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
            os.pwrite(self._descriptor, self._holder, 0)
        except OSError as error:
            self.release()
            raise cant_write(folder / "lock", error) from error

    def note(self, text: str) -> None:
        """Write on the second line of the file what the holder is doing; where the disk refuses, it is left out.

        Parameters
        ----------
        text
            ASCII, at most 99 characters. `noted` returns it.
        """
        if self._descriptor in _held:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, f"{text:<99}\n".encode(), len(self._holder))

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1  # its number may be another lock's next


def held_error(folder: Path) -> RunLockedError:
    """Return the error to raise where another process writes to a run, which names the process."""
    holder = _line(folder, 0)
    return RunLockedError(
        f"run {folder.name} is being written by {holder or 'another process'}; wait for it to end, or stop it."
    )


def noted(folder: Path) -> str:
    """Return what the holder of the lock wrote last with `RunLock.note`; empty where nobody holds it."""
    return _line(folder, 1) if is_locked(folder) else ""


def _line(folder: Path, place: int) -> str:
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            lines = os.read(descriptor, 500).decode(errors="replace").splitlines()
        finally:
            os.close(descriptor)
    except OSError:
        return ""
    return lines[place].strip() if place < len(lines) else ""


def is_locked(folder: Path) -> bool:
    """Return whether some process is writing to a run."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # a link is no lock of alcore's
            return False
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
