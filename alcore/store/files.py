"""Files that are either there in whole or not at all, inside one root."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import AlcoreError, RunExistsError, UsageError
from alcore.names import check_run_id
from alcore.store.filenames import hidden_name, is_hidden, is_part_of_run, is_unfinished


class StorageError(AlcoreError, OSError):
    """A full disk or an I/O error ended the run; what was committed before is safe."""


def cant_write(path: Path, error: BaseException) -> StorageError:
    """Return what to raise where a full disk or an I/O error was met: the place, the reason, and how to go on."""
    return StorageError(
        f"{path} can't be written: {error}. What was committed before is safe: make room or mend the disk, "
        "then resume the run, or start it again if it had not begun."
    )


def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str, *, durable: bool) -> None:
    """Write a text file by renaming a finished one over it.

    Parameters
    ----------
    path
        File to write or replace.
    text
        Its content.
    durable
        Flush file and folder to the disk before returning. Without it a crash of the machine may lose the
        newest version, never leave half of one.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is told
            Path(name).unlink(missing_ok=True)
        raise
    if durable:
        fsync_path(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove the text files of a run directory that a process was writing when it was killed."""
    for path in folder.iterdir():
        if is_unfinished(path.name):
            path.unlink(missing_ok=True)


def run_directory(root: Path, run_id: str) -> Path:
    """Return the folder of a run, which lies directly in the root and is no link out of it."""
    folder = root / check_run_id(run_id)
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link; a run directory must be a real folder inside {root}.")
    return folder


def free_run_id(root: Path) -> str:
    """Return 8 hexadecimal digits that no run in `root` has."""
    while (root / (run_id := secrets.token_hex(4))).exists():
        pass
    return run_id


@contextlib.contextmanager
def appearing_run(root: Path, run_id: str) -> Iterator[Path]:
    """Give a hidden folder to build a run directory in, which appears by one rename when the block ends.

    Parameters
    ----------
    root
        Folder of all runs; made where it is missing.
    run_id
        Names the run.

    Raises
    ------
    RunExistsError
        When something of this name is there already; it is not touched.
    """
    target = run_directory(root, run_id)
    hidden = root / hidden_name(run_id)
    try:
        new = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError, PermissionError) as error:
            raise UsageError(f"{root} can't be a folder of runs: {error.strerror}; give another --root.") from error
        for folder in new:
            fsync_path(folder.parent)
        _refuse_existing(target)
        with _nobody_removes(root):
            hidden.mkdir()
            yield hidden
            fsync_path(hidden)
            _refuse_existing(target)
            try:
                hidden.rename(target)
            except OSError:
                _refuse_existing(target)
                raise
            fsync_path(root)
    except BaseException as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise cant_write(target, error) from error
        raise


@contextlib.contextmanager
def _nobody_removes(root: Path) -> Iterator[None]:
    """Keep others from removing the hidden folder of the block; first remove those that nobody is working in.

    A lock on the folder of runs, shared by all who build a run in it. Who gets it alone knows that nobody builds, so
    that hidden folders were left by processes that were killed. Where folders can't be locked, they stay.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in root.iterdir():
                if is_hidden(path.name) and _is_half_a_run(path):
                    shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _is_half_a_run(path: Path) -> bool:
    return not path.is_symlink() and path.is_dir() and all(is_part_of_run(one.name) for one in path.iterdir())


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise RunExistsError(
            f"run {target.name!r} exists already in {target.parent}; give another --run-id, or none to have one made."
        )
