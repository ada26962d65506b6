"""Files and folders that processes of several machines share: links are not followed, and files appear whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alcore_worker.names import DocumentError

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a disk that has no room."""
_OLD = 86400.0  # seconds after which an unfinished file is removed, and that of a worker that says nothing


def make_folder(path: Path) -> None:
    """Make a folder, if it is not there; `DocumentError` where something else is, which is not followed."""
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    check_folder(path)


def check_folder(folder: Path) -> None:
    """Raise `DocumentError` where something else than a folder is there, which is not followed."""
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise DocumentError(
            f"{folder} is not a folder but a link or something else, which is not followed; remove it, or use another "
            "folder for workers"
        )


def fault_of_folder(folder: Path) -> str | None:
    """Return why a folder is none that can be worked in; None where it is one."""
    try:
        check_folder(folder)
    except FileNotFoundError:
        return f"{folder} is missing; a copy or a removal may have been cut off"
    except (PermissionError, DocumentError) as error:
        return str(error)
    return None if may(folder, os.R_OK | os.W_OK | os.X_OK) else f"{folder} may not be read and written by this user"


def may(path: Path, mode: int) -> bool:
    """Return whether this user may read, write or enter; `mode` is that of `os.access`."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def may_be_file(path: Path) -> bool:
    """Return whether a file is there, or may be in a folder that can't be looked into."""
    try:
        return path.is_file()
    except PermissionError:
        return True


def remove_old(folder: Path, is_ours: Callable[[str], object]) -> None:
    """Remove the files that processes left which were killed; who still needs one makes it again."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                is_file = is_ours(entry.name) and entry.is_file(follow_symlinks=False)
                if is_file and entry.stat(follow_symlinks=False).st_mtime < time.time() - _OLD:
                    Path(entry.path).unlink()


def write_new(part: Path, target: str, content: bytes) -> None:
    """Write a file that is durable, and whole when it has its name; `FileExistsError` if another one has it."""
    try:
        write(part, content, durable=True)
        _link(str(part), target, content)
    finally:
        part.unlink(missing_ok=True)


def _link(part: str, target: str, content: bytes) -> None:
    """Give a file one more name; where the file system has no hard links, write this content under it."""
    try:
        os.link(part, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in FULL or not os.path.lexists(part):
            raise
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        own = Path(part).with_name(secrets.token_hex(8))
        write(own, content, durable=True)
        own.rename(target)


def write(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a file that is not there yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)  # it may take the last room there is
        raise


def open_own(path: Path) -> int:
    """Open a file to write into its place; where it has a second name, it is not ours, and another one is made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    unlink(str(path))  # it may be gone, where the driver found the worker silent
    return os.open(path, flags | os.O_EXCL, 0o666)


def flush(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        remove(path)


def remove(path: str) -> None:
    """Remove a file; a folder in its place is moved out of the way, into the name of a file that nobody reads."""
    try:
        os.unlink(path)  # noqa: PTH108
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
        Path(path).rename(Path(path).with_name(f"folder-{secrets.token_hex(8)}"))


def state_of(path: Path) -> tuple[bytes, int] | None:
    """Return what a file holds, and when it was changed; None where it is not there, or is none of this kind."""
    try:
        with _opened(path) as descriptor:
            status = os.fstat(descriptor)
            return _content(path, descriptor, status, 100), status.st_mtime_ns
    except (FileNotFoundError, NotADirectoryError, DocumentError):
        return None
    except PermissionError:  # that of another user, who lets nobody read it: its time tells
        with contextlib.suppress(OSError):
            return b"", path.lstat().st_mtime_ns
        return None


def read(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes; links are not followed."""
    with _opened(path) as descriptor:
        return _content(path, descriptor, os.fstat(descriptor), most)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):  # noqa: PTH114
            raise DocumentError(f"{path} is a link, which is not followed") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(path: str | Path, descriptor: int, status: os.stat_result, most: int) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(f"{path} is not a regular file")
    if status.st_size > most:
        raise DocumentError(f"{path} has {status.st_size} bytes; {most} is the most")
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(most + 1)
