"""Fork a run: make a new one that begins with everything another had committed at the end of a step."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alcore.errors import UsageError
from alcore.store import exports
from alcore.store.creation import appearing_run
from alcore.store.database import Opened
from alcore.store.digests import prepare
from alcore.store.facts import set_meta, utc_now
from alcore.store.files import check_regular, checkpoint_path, free_run_id, fsync_path, sha256_of
from alcore.store.formats import decoding
from alcore.store.lock import RunLock
from alcore.store.reading import Run
from alcore.store.steps import Steps
from alcore.store.transfer import large_values
from alcore.store.values import LabelValues


class Fork(NamedTuple):
    """A new run: its folder, the checkpoint that it goes on from, and what the user should know."""

    folder: Path
    checkpoint: str
    warnings: list[str]


def fork_run(
    source: Run, step: int, *, run_id: str | None = None, experiment: str | None = None, root: Path | None = None
) -> Fork:
    """Make a new run that begins with everything a run had committed at the end of a step.

    It shares no file with the other run, which is only read, and may go on while it is forked. To continue it,
    give `alcore.Driver` its id and call `Driver.restore`, or ``alcore resume``.

    Parameters
    ----------
    source
        The run to fork.
    step
        The last step that the new run has. It goes on from the nearest checkpoint at or before its end; requests
        that were answered in later steps are open again.
    run_id
        Names the new run; 8 hexadecimal digits where it is None.
    experiment
        Text of the new run's ``experiment.toml``; that of the other run where it is None.
    root
        Where the new run is made; beside the other one where it is None.

    Returns
    -------
    Fork
        With a warning for each checkpoint that was damaged and left out.

    Raises
    ------
    UsageError
        If the run has no such step, what it had committed by then is damaged, or its first checkpoint is.
    RunExistsError
        If the run id is taken.

    Notes
    -----
    Requests keep their ids, which hash the id of the run that made them: an answer that was bought for one of them
    fits in both runs. What the new run asks for gets ids of its own.
    """
    source.verify(until=step)
    _check_step(source, step)
    root = source.folder.resolve().parent if root is None else root
    new_id = run_id or free_run_id(root)
    with contextlib.ExitStack() as held, appearing_run(root, new_id) as hidden:
        held.callback(RunLock(hidden).release)
        (hidden / "ckpt").mkdir()
        (hidden / "inbox").mkdir()
        if experiment is None:
            shutil.copyfile(check_regular(source.folder / "experiment.toml"), hidden / "experiment.toml")
        else:
            (hidden / "experiment.toml").write_text(experiment, encoding="utf-8")
        fsync_path(hidden / "experiment.toml")
        source.copy_database(hidden / "run.db", step)
        with _transaction(hidden / "run.db") as connection:
            _copy_values(connection, source, hidden)
            files, warnings = _copy_checkpoints(Steps(Opened(connection)), source, hidden)
            facts = {
                "run_id": new_id,
                "status": "interrupted",
                "started": utc_now(),
                "forked_from": source.folder.resolve().name,
                "forked_at": step,
                "waits": None,  # how long the other run waited in a step is not known of this one
            }
            set_meta(connection, facts)
            exports.write_all(connection, hidden)
    return Fork(root / new_id, files[-1], warnings)


def _check_step(source: Run, step: int) -> None:
    if source.is_committed(step):
        return
    steps = source.first_and_last_step()
    if steps is None:
        raise UsageError(f"run {source.folder.name} has finished no step yet, so there is nothing to fork.")
    first, last = steps
    raise UsageError(
        f"run {source.folder.name} has finished no step {step}; it has {first} to {last}: "
        f"fork it with --step {min(max(step, first), last)}."
    )


@contextlib.contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Change the copy in one transaction."""
    with decoding(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        prepare(connection)
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
    fsync_path(path)


def _copy_values(connection: sqlite3.Connection, source: Run, hidden: Path) -> None:
    """Copy the files of the large values that the copied database names."""
    if not (named := large_values(connection)):
        return
    here, there = LabelValues(source.folder / "labels"), LabelValues(hidden / "labels")
    (hidden / "labels").mkdir()
    for sha256 in named:
        here.read(sha256)  # a damaged file is found now, not when the fork needs it
        shutil.copyfile(here.path(sha256), there.path(sha256))
        fsync_path(there.path(sha256))
    fsync_path(hidden / "labels")


def _copy_checkpoints(steps: Steps, source: Run, hidden: Path) -> tuple[list[str], list[str]]:
    """Copy what the copied database names, and take out of it what is damaged or gone by now.

    Returns
    -------
    list of str
        The files, oldest first.
    list of str
        Warnings.
    """
    files, warnings = [], []
    for row in steps.checkpoints():
        name = row["file"]
        copied = checkpoint_path(hidden, name)
        fault = ""
        try:
            shutil.copyfile(check_regular(checkpoint_path(source.folder, name)), copied)
            fault = "" if sha256_of(copied) == row["sha256"] else "its SHA-256 is not the one recorded for it"
        except FileNotFoundError:
            fault = "its file is missing"
        if not fault:
            fsync_path(copied)
            files.append(name)
            continue
        if row["phase"] == "start":
            raise UsageError(
                f"checkpoint {source.folder / 'ckpt' / name} is damaged: {fault}. A run can't be forked, nor resumed, "
                "without its first state."
            )
        copied.unlink(missing_ok=True)
        steps.delete_checkpoints([name])
        if any(
            checkpoint["file"] == name for checkpoint in source.checkpoints()
        ):  # else the source, still running, has pruned it
            warnings.append(f"checkpoint {name} is left out, since it is damaged: {fault}")
    fsync_path(hidden / "ckpt")
    return files, warnings
