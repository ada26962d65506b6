"""Files that are written whole or not at all, and folders of runs that lie in one root."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path

from alcore.errors import AlcoreError, UsageError

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class StorageError(AlcoreError, OSError):
    """A full disk or an I/O error ended the run; what was committed before is safe."""


def check_run_id(run_id: str) -> str:
    """Return a run id if it is allowed: a plain name that is one part of a path; raise `UsageError` otherwise."""
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}: use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first."
        )
    return run_id


def cant_write(path: Path, error: BaseException) -> StorageError:
    """Return the error to raise for a full disk or an I/O error: the place, the reason, and how to go on."""
    return StorageError(
        f"{path} can't be written: {error}. What was committed before is safe: make room or repair the disk, "
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
    """
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


def run_directory(root: Path, run_id: str) -> Path:
    """Return the folder of a run, which lies in the root and is not a link out of it."""
    return check_folder(root / check_run_id(run_id))


def free_run_id(root: Path) -> str:
    """Return 8 hexadecimal digits that no run in `root` has."""
    while (root / (run_id := secrets.token_hex(4))).exists():
        pass
    return run_id
