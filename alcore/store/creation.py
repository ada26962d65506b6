"""How a run directory comes to be: built in a hidden folder, which appears under its name by one rename."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import RunExistsError, UsageError
from alcore.store.files import fsync_path, renamed_at_end, run_directory
from alcore.store.lock import is_locked

_HIDDEN = re.compile(r"\.alcore-building\.[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.[0-9a-f]{8}")
_YOUNG = 60.0
"""Seconds for which a hidden folder without a lock is taken for one that is about to be locked."""


@contextlib.contextmanager
def appearing_run(root: Path, run_id: str) -> Iterator[Path]:
    """Give a hidden folder to build a run directory in, which appears by one rename when the block ends.

    Parameters
    ----------
    root
        Folder of all runs; made if it does not exist.
    run_id
        Names the run.

    Raises
    ------
    RunExistsError
        If something of this name exists; it is not touched.

    Notes
    -----
    The block locks the folder with `alcore.store.lock.RunLock`, first of all and until after the rename. If the process
    is killed before that, the hidden folder stays until `remove_unfinished_runs`.
    """
    target = run_directory(root, run_id)
    hidden = root / f".alcore-building.{run_id}.{secrets.token_hex(4)}"
    with renamed_at_end(hidden, target, _refuse_existing):
        new = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError, PermissionError) as error:
            raise UsageError(f"{root} can't be a folder of runs: {error.strerror}; give another --root.") from error
        for folder in new:
            fsync_path(folder.parent)
        _refuse_existing(target)
        hidden.mkdir()
        yield hidden


def unfinished_runs(root: Path) -> list[Path]:
    """Return the hidden folders in which killed processes were building runs, in the order of their names.

    A folder counts if it has the name that `appearing_run` gives, is a real folder and not a link to one, and its lock
    is free. One without a lock counts after a minute: its process may be about to lock it.
    """
    if not root.is_dir():
        return []
    folders = []
    for path in sorted(root.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # it has appeared, or was removed, since it was listed
            if _HIDDEN.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and not _is_in_use(path):
                folders.append(path)
    return folders


def remove_unfinished_runs(root: Path) -> list[Path]:
    """Remove what `unfinished_runs` returns; return what was removed."""
    removed = []
    for path in unfinished_runs(root):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            removed.append(path)
    return removed


def _is_in_use(folder: Path) -> bool:
    if (folder / "lock").exists():
        return is_locked(folder)
    return time.time() - folder.stat().st_mtime < _YOUNG


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise RunExistsError(
            f"run {target.name!r} exists already in {target.parent}; give another --run-id, or none to have one made; "
            f"alcore resume {target.name} goes on with it, as --resume auto does. From Python, driver.restore() before "
            "driver.run() does, or DriverConfig(resume='auto')."
        )
