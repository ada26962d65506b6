"""Files that are either there in whole or not at all, inside one root."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import AlcoreError, RunExistsError, UsageError
from alcore.names import check_run_id
from alcore.store.filenames import ROOT_LOCK, UNFINISHED, hidden_name, is_hidden, is_part_of_run, is_unfinished


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
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
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
    with contextlib.suppress(OSError):  # litter hurts nobody
        for path in folder.iterdir():
            if is_unfinished(path.name):
                remove_file(path)


def remove_file(path: Path) -> None:
    """Remove litter, if it is a regular file and can be removed."""
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            path.unlink()


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

    A lock of a file in the folder of runs, shared by all who build a run in it. Who gets it alone knows that nobody
    builds, so that hidden folders were left by processes that were killed. Where it can't be had, they stay. It is
    never waited for: whoever started this process may hold it, or the file system may have no locks.
    """
    try:
        descriptor = os.open(root / ROOT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        yield
        return
    try:
        if _locked(descriptor, fcntl.LOCK_EX):
            with contextlib.suppress(OSError):
                for path in root.iterdir():
                    if is_hidden(path.name) and _is_half_a_run(path):
                        shutil.rmtree(path, ignore_errors=True)
        for _ in range(20):  # one who removes is done in no time
            if _locked(descriptor, fcntl.LOCK_SH):
                break
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_half_a_run(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir() or not all(is_part_of_run(one.name) for one in path.iterdir()):
        return False
    return not _holds_anything(path / "run.db")


def _holds_anything(database: Path) -> bool:
    """Tell whether a database has a step or a label, or what can't be read: then it is not for alcore to remove."""
    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return any(
                connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]
                for table in ("steps", "labels")
                if table in tables
            )
    except sqlite3.Error:
        return True


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise RunExistsError(
            f"run {target.name!r} exists already in {target.parent}; give another --run-id, or none to have one made; "
            f"alcore resume {target.name} goes on with it, as --resume auto does."
        )
