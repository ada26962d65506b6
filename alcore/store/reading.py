"""Read a run directory without disturbing its writer: fetch, and close at once."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alcore.codec import loads
from alcore.errors import UsageError, did_you_mean
from alcore.store.database import check_format
from alcore.store.files import run_directory
from alcore.store.history import CHECKPOINTS, META, RECORDS, records_by_strategy
from alcore.store.lock import is_locked


class Summary(NamedTuple):
    """A run on one line.

    `status` is ``done``, ``failed``, ``interrupted``, ``running``, ``stopped`` (it runs no more, and nobody said
    why), or ``unreadable``, with the reason beside it.
    """

    run_id: str
    status: str
    reason: str | None
    started: str
    steps: int
    labels: int
    metrics: dict[str, float]


class Run:
    """A run directory, read when something is asked for.

    Parameters
    ----------
    folder
        The run directory.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "run.db").is_file():
            raise UsageError(f"{folder} is no run directory: it has no run.db.")
        self.folder = folder

    def meta(self) -> dict[str, Any]:
        """Return what is known about the run as a whole, ``status`` corrected for a writer that is gone."""
        rows = self.read(META)
        meta = {row["key"]: loads(row["value"]) for row in rows}
        if meta.get("status") == "running" and not is_locked(self.folder):
            meta["status"] = "stopped"
        return meta

    def steps(self) -> list[dict[str, Any]]:
        """Return the finished steps: their books, and ``seconds`` by phase."""
        rows = self.read("SELECT record, seconds FROM steps ORDER BY step")
        return [{**loads(row["record"]), "seconds": json.loads(row["seconds"])} for row in rows]

    def records(self) -> dict[str, list[Any]]:
        """Return the metrology records by strategy."""
        return records_by_strategy(self.read(RECORDS))

    def requests(self, step: int | None = None) -> list[dict[str, Any]]:
        """Return requests with their current labels, in order; those of one step, or all."""
        rows = self.read(
            "SELECT r.step, r.ordinal, r.id, r.sample, r.item, r.strategy, r.score, r.rank, r.model, r.attempt,"
            " r.state, l.kind, l.value, l.source, l.cost FROM requests r"
            " LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0"
            " WHERE ?1 IS NULL OR r.step = ?1 ORDER BY r.step, r.ordinal",
            step,
        )
        return [dict(row) for row in rows]

    def refused(self) -> list[dict[str, Any]]:
        """Return the answers that were refused, with the reasons."""
        return [dict(row) for row in self.read("SELECT step, request, item, reason FROM refused ORDER BY rowid")]

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
        return [dict(row) for row in self.read(CHECKPOINTS)]

    def summary(self) -> Summary:
        """Return the run on one line."""
        meta = self.meta()
        (counts,) = self.read(
            "SELECT (SELECT COUNT(*) FROM steps) AS steps, (SELECT COUNT(*) FROM labels WHERE superseded = 0) AS labels"
        )
        last = self.read("SELECT value FROM records ORDER BY step DESC, strategy, ordinal LIMIT 1")
        return Summary(
            self.folder.name,
            meta.get("status", "?"),
            meta.get("error") or meta.get("reason"),
            meta.get("started", ""),
            counts["steps"],
            counts["labels"],
            figures(loads(last[0]["value"])) if last else {},
        )

    def read(self, query: str, *parameters: object) -> list[sqlite3.Row]:
        """Return all rows of one query, and close the database."""
        with self._connection() as connection:
            return connection.execute(query, parameters).fetchall()

    def copy_database(self, target: Path) -> None:
        """Write all of the database, as it is at one moment, to a new file."""
        with self._connection() as connection, contextlib.closing(sqlite3.connect(target)) as copy:
            connection.backup(copy)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / "run.db"
        try:
            # rw, since what a killed writer left half done must be rolled back before anything can be read
            with contextlib.closing(
                sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=10)
            ) as connection:
                connection.execute("PRAGMA query_only = ON")
                check_format(connection, path)
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            raise UsageError(f"{path} can't be read: {error}.") from error


def figures(record: Any) -> dict[str, float]:
    """Return the fractions in a metrology record: what a learning curve is drawn of."""
    if not isinstance(record, dict):
        return {}
    return {name: value for name, value in record.items() if isinstance(value, float)}


def run_folders(root: Path) -> list[Path]:
    """Return the run directories in a root, in the order of their names."""
    if not root.is_dir():
        return []
    return sorted(one for one in root.iterdir() if not one.name.startswith(".") and (one / "run.db").is_file())


def summaries(root: Path) -> Iterator[Summary]:
    """Yield every run of a root, oldest first; one that can't be read is told as such."""
    found = []
    for folder in run_folders(root):
        try:
            found.append(Run(folder).summary())
        except ValueError as error:  # a UsageError, or text that is no JSON
            found.append(Summary(folder.name, "unreadable", str(error), "", 0, 0, {}))
    yield from sorted(found, key=lambda one: (one.started, one.run_id))


def find_run(root: Path, text: str) -> Run:
    """Return the run that a user means: by id, by the start of one, or by its folder.

    Raises
    ------
    UsageError
        When there is none, naming what is near, or more than one.
    """
    if "/" in text or (Path(text) / "run.db").is_file():
        folder = Path(text)
        return Run(folder if folder.name not in ("", "..") else folder.resolve())  # "./" is called by no name
    names = [folder.name for folder in run_folders(root)]
    if text in names:
        return Run(run_directory(root, text))
    matches = [name for name in names if name.startswith(text)]
    if len(matches) == 1:
        return Run(run_directory(root, matches[0]))
    if matches:
        raise UsageError(f"{text!r} is the start of {len(matches)} runs in {root}: {', '.join(matches)}.")
    raise UsageError(f"there is no run {text!r} in {root}: {did_you_mean(text, names)}. `alcore runs` lists them.")
