"""Fork a run: make a new one that begins with everything another had committed at the end of a step."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from alcore.codec import dumps, loads
from alcore.errors import UsageError
from alcore.store import exports
from alcore.store.database import Database
from alcore.store.files import appearing_run, free_run_id, fsync_path, sha256_of
from alcore.store.history import CHECKPOINTS
from alcore.store.reading import Run


class Fork(NamedTuple):
    """A new run: its folder, the checkpoint that it goes on from, and what the user should know."""

    folder: Path
    checkpoint: str
    warnings: list[str]


def fork(source: Run, step: int, *, run_id: str | None = None, root: Path | None = None) -> Fork:
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
    root
        Where the new run is made; beside the other one where it is None.

    Returns
    -------
    Fork
        With a warning for each checkpoint that was damaged and left out.

    Raises
    ------
    UsageError
        When the run has no such step, or its first checkpoint is damaged.
    RunExistsError
        When the run id is taken.

    Notes
    -----
    Requests keep their ids, which hash the id of the run that made them: an answer that was bought for one of them
    fits in both runs. What the new run asks for gets ids of its own.
    """
    _check_step(source, step)
    root = source.folder.resolve().parent if root is None else root
    new_id = run_id or free_run_id(root)
    with appearing_run(root, new_id) as hidden:
        (hidden / "ckpt").mkdir()
        (hidden / "inbox").mkdir()
        shutil.copyfile(source.folder / "experiment.toml", hidden / "experiment.toml")
        fsync_path(hidden / "experiment.toml")
        source.copy_database(hidden / "run.db")
        with _transaction(hidden / "run.db") as connection:
            _cut(connection, step)
            files, warnings = _copy_checkpoints(connection, source, hidden)
            _change_meta(connection, source.folder.resolve().name, step, new_id)
        database = Database(hidden / "run.db")
        exports.write_all(database, hidden)
        database.close()
    return Fork(root / new_id, files[-1], warnings)


def _check_step(source: Run, step: int) -> None:
    if source.read("SELECT 1 FROM steps WHERE step = ?", step):
        return
    (row,) = source.read("SELECT MIN(step) AS first, MAX(step) AS last FROM steps")
    if row["last"] is None:
        raise UsageError(f"run {source.folder.name} has finished no step yet, so there is nothing to fork.")
    raise UsageError(
        f"run {source.folder.name} has finished no step {step}; it has {row['first']} to {row['last']}: "
        f"fork it with --step {min(max(step, row['first']), row['last'])}."
    )


@contextlib.contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Change the copy in one transaction, and leave nothing of what was deleted in the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
        connection.execute("VACUUM")
    fsync_path(path)


def _cut(connection: sqlite3.Connection, step: int) -> None:
    """Delete what was committed after the end of a step, and open again what was settled after it."""
    for table in ("labels", "refused", "requests", "queries", "records", "steps", "checkpoints"):
        connection.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
    connection.execute(  # an answer that was corrected later is the current one again
        "UPDATE labels SET superseded = 0 WHERE rowid IN (SELECT MAX(rowid) FROM labels GROUP BY request)"
    )
    connection.execute(  # what was refused of an open request is its failed attempts
        "UPDATE requests SET state = 'open', closed = NULL, attempt ="
        " (SELECT COUNT(*) FROM refused WHERE request = requests.id) WHERE closed IS NULL OR closed > ?",
        (step,),
    )


def _copy_checkpoints(connection: sqlite3.Connection, source: Run, hidden: Path) -> tuple[list[str], list[str]]:
    """Copy what the copied database names, and take out of it what is damaged or gone by now.

    Returns
    -------
    list of str
        The files, oldest first.
    list of str
        Warnings.
    """
    files, warnings = [], []
    for row in connection.execute(CHECKPOINTS).fetchall():
        name = row["file"]
        copied = hidden / "ckpt" / name
        fault = ""
        try:
            shutil.copyfile(source.folder / "ckpt" / name, copied)
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
        connection.execute("DELETE FROM checkpoints WHERE file = ?", (name,))
        if any(one["file"] == name for one in source.checkpoints()):  # else the running source has pruned it
            warnings.append(f"checkpoint {name} is left out, since it is damaged: {fault}")
    fsync_path(hidden / "ckpt")
    return files, warnings


def _change_meta(connection: sqlite3.Connection, source: str, step: int, run_id: str) -> None:
    """Say what the new run is and where it came from."""
    meta = {row["key"]: row["value"] for row in connection.execute("SELECT key, value FROM meta WHERE key <> 'epoch'")}
    if f"labeler-{step}" in meta:
        meta["labeler"] = meta[f"labeler-{step}"]
    elif "labeler" in meta and loads(loads(meta["labeler"]))["step"] > step:
        del meta["labeler"]  # of a later step; nothing had been answered by the end of this one
    meta.pop("labeling_ended", None)
    for later in [key for key in meta if key.startswith("labeler-") and int(key.partition("-")[2]) > step]:
        del meta[later]
    for gone in ("ended", "reason", "error"):
        meta.pop(gone, None)
    meta |= {
        "run_id": dumps(run_id),
        "status": dumps("interrupted"),
        "started": dumps(datetime.now(UTC).isoformat(timespec="seconds")),
        "forked_from": dumps(source),
        "forked_at": dumps(step),
    }
    connection.execute("DELETE FROM meta WHERE key <> 'epoch'")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
