"""Files that are written whole or not at all, and names of runs and of their files that lead nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from alcore.errors import AlcoreError, UsageError

WORK = "work"
"""The folder of a strategy in which programs of the user work: ``strategies/NAME/work``."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors", re.ASCII)
_STRATEGY = re.compile(r"\w{0,200}(-[0-9]{1,9})?")
_FILES = frozenset({"run.db", "run.db-journal", "run.db-wal", "run.db-shm", "lock", "console.log", "experiment.toml"})
_FOLDERS = frozenset({"ckpt", "inbox", "labels", "strategies"})
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another file, which SQLite deletes when it rolls back; alcore writes none."""


class StorageError(AlcoreError, OSError):
    """A full disk or an I/O error ended the run; what was committed before is safe."""


def check_run_id(run_id: str) -> str:
    """Return a run id if it is allowed: a plain name that is one part of a path; raise `UsageError` otherwise."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}: use 1 to 100 ASCII letters (a to z, A to Z), digits, dots, dashes and underscores, a "
            "letter or digit first."
        )
    return run_id


def cant_write(path: Path, error: BaseException) -> StorageError:
    """Return the error to raise for a full disk or an I/O error: the place, the reason, and how to go on."""
    return StorageError(
        f"{path} can't be written: {error}. What was committed before is safe: make room or repair the disk, "
        "then resume the run, or start it again if it had not begun."
    )


@contextlib.contextmanager
def renamed_at_end(hidden: Path, target: Path, refuse_taken: Callable[[Path], None]) -> Iterator[None]:
    """Give a hidden folder its name when the block ends, or remove it if that fails.

    Parameters
    ----------
    hidden, target
        The folder as it is, or as the block makes it, and its name; both in one folder.
    refuse_taken
        Raises an error if something of this name exists.

    Raises
    ------
    StorageError
        If the disk is full or fails, in the block too.
    """
    try:
        yield
        fsync_path(hidden)
        refuse_taken(target)
        try:
            hidden.rename(target)
        except OSError:
            refuse_taken(target)
            raise
        fsync_path(target.parent)
    except BaseException as error:
        shutil.rmtree(hidden, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise cant_write(target, error) from error
        raise


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
    """Write a text file under another name, and rename it.

    Parameters
    ----------
    path
        File to write or replace. Nobody else writes it at the same time.
    text
        Its content.
    durable
        Flush file and folder to the disk before returning. Without it a crash of the machine may lose the
        newest version, never leave half of one.

    Raises
    ------
    UsageError
        If something other than a file is there, such as a device or a pipe, which renaming would remove.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # a folder can't be replaced
        raise UsageError(f"{path} is a device, a pipe or a socket, which a file would take the place of; name a file.")
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # left by a process that was killed
    try:
        with part.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)
        raise
    if durable:
        fsync_path(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file that is not needed any more; do nothing if it is not a regular file or can't be removed."""
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            path.unlink()


def check_folder(folder: Path) -> Path:
    """Return a folder; raise `UsageError` if it is a symbolic link, which may lead out of the run directory."""
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link; it must be a real folder inside {folder.parent}.")
    return folder


def check_regular(path: Path) -> Path:
    """Return a file; raise `UsageError` if it is there and is a symbolic link, a pipe, a device or a folder."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UsageError(f"{path} is a symbolic link, or no regular file; replace it by a real file.")
    return path


def check_run_folder(folder: Path, *, whole: bool) -> None:
    """Refuse a run directory in which something leads out of it: it may come from a stranger.

    Parameters
    ----------
    folder
        The run directory.
    whole
        Whether to look at everything in it, as before the run goes on, or only at what readers open.

    Raises
    ------
    UsageError
        Naming a symbolic link in place of a file or folder of alcore's, or one that leads out of the run directory; a
        pipe or device in place of a file; a journal of the database that names another file. What is in
        ``strategies/NAME/work`` is not looked at: programs of the user work there.
    """
    for entry in os.scandir(folder):
        is_folder = entry.name in _FOLDERS
        if is_folder or entry.name in _FILES or entry.name.endswith(".json"):
            check_folder(Path(entry.path)) if is_folder else check_regular(Path(entry.path))
    with contextlib.suppress(FileNotFoundError), (folder / "run.db-journal").open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - len(_SUPER_JOURNAL), 0))
        if file.read() == _SUPER_JOURNAL:
            raise UsageError(
                f"{folder / 'run.db-journal'} names another file, which would be deleted; alcore doesn't write such "
                "a journal. Remove it if you know where this run directory comes from."
            )
    if whole:
        _check_links(folder)


def _check_links(folder: Path) -> None:
    inside = folder.resolve()
    strategies = folder / "strategies"
    for where, folders, files in os.walk(folder):
        below = [Path(where, name) for name in (*folders, *files)]
        if Path(where).parent == strategies and WORK in folders:
            folders.remove(WORK)  # what programs of the user write there may be anything
        for path in below:
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UsageError(
                    f"{path} is a symbolic link that leads out of the run directory: remove it, or replace it by what "
                    "it leads to."
                )


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return where a checkpoint that the database names lies; `UsageError` if that may be outside the run directory."""
    if not _CHECKPOINT.fullmatch(name):
        raise UsageError(f"{folder / 'run.db'} names a checkpoint {name!r}, which is not the name of one.")
    return folder / "ckpt" / name


def records_path(folder: Path, strategy: str) -> Path:
    """Return where records are exported; `UsageError` if that may be outside the run directory."""
    if not _STRATEGY.fullmatch(strategy) or strategy == "driver_log":
        raise UsageError(
            f"{folder / 'run.db'} has records of a metrology strategy {strategy!r}, which can't be the name of one."
        )
    return folder / f"{strategy}.json"


def run_directory(root: Path, run_id: str) -> Path:
    """Return the folder of a run, which lies in the root and is not a link out of it."""
    return check_folder(root / check_run_id(run_id))


def free_run_id(root: Path) -> str:
    """Return 8 hexadecimal digits that no run in `root` has."""
    while (root / (run_id := secrets.token_hex(4))).exists():
        pass
    return run_id
