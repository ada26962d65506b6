"""Folders for other programs, which appear whole by one rename, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import UsageError
from alcore.store.files import cant_write, fsync_path, renamed_at_end

_PART = re.compile(r"\.[0-9a-f]{8}\.part")


@contextlib.contextmanager
def appearing_folder(target: Path) -> Iterator[Path]:
    """Give a hidden folder beside `target`, which takes its name by one rename when the block ends.

    Parameters
    ----------
    target
        A folder that does not exist yet; those above it are made.

    Raises
    ------
    UsageError
        If something of this name exists, before the block or after it; it is not touched.
    StorageError
        If the disk is full or fails.

    Notes
    -----
    If the process is killed, the hidden folder stays, and the next call for this target removes it. The lock on the
    hidden folder says whether its process lives.
    """
    _refuse_taken(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in sorted(target.parent.glob(f".{glob.escape(target.name)}.*.part")):
            if _PART.fullmatch(left.name[len(target.name) + 1 :]) and left.is_dir() and not left.is_symlink():
                _remove_unlocked(left)
        hidden, lock = _locked_folder(target)
    except OSError as error:
        raise cant_write(target, error) from error
    try:
        with renamed_at_end(hidden, target, _refuse_taken):
            yield hidden
            for path in hidden.rglob("*"):
                fsync_path(path)
    finally:
        os.close(lock)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """Make a hidden folder and lock it; what another process has removed before it was locked is made once more."""
    while True:
        hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        hidden.mkdir()
        lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if hidden.exists():
            return hidden, lock
        os.close(lock)


def _remove_unlocked(folder: Path) -> None:
    """Remove a folder unless some process has locked it."""
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _refuse_taken(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already; give another folder with --output.")
