"""Files that are either there in whole or not at all, inside one root."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from alcore.errors import UsageError
from alcore.names import check_run_id


def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        fsync_path(path.parent)


def run_directory(root: Path, run_id: str) -> Path:
    """Return the folder of a run, which lies directly in the root and is no link out of it."""
    folder = root / check_run_id(run_id)
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link; a run directory must be a real folder inside {root}.")
    return folder
