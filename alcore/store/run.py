"""The open run directory of one driver."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alcore.codec import dumps, loads
from alcore.errors import UsageError
from alcore.protocols import Request
from alcore.store import checkpoints, exports, statements
from alcore.store.checkpoints import Aside
from alcore.store.database import Database
from alcore.store.filenames import checkpoint_name
from alcore.store.files import (
    StorageError,
    appearing_run,
    cant_write,
    remove_unfinished,
    run_directory,
    write_whole,
)
from alcore.store.history import CHECKPOINTS, META, Asked, request_of
from alcore.store.lock import RunLock
from alcore.store.retention import remove_litter, remove_unnamed
from alcore.store.statements import Record


def request_id(run_id: str, step: int, ordinal: int) -> str:
    """Return the idempotency key of a request: 32 hexadecimal digits."""
    return hashlib.sha256(f"{run_id}/{step}/{ordinal}".encode()).hexdigest()[:32]


class RunStore:
    """The one writer of a run directory; made by `create`."""

    def __init__(self, folder: Path, lock: RunLock, database: Database | None = None) -> None:
        self.folder = folder
        self.database = database or Database(folder / "run.db")
        self._lock = lock
        self._exported = time.monotonic()

    @classmethod
    def create(
        cls, root: Path, run_id: str, *, meta: Mapping[str, Any], experiment: str, state: Mapping[str, Any]
    ) -> RunStore:
        """Make a run directory that appears complete, with its first checkpoint, or not at all.

        Parameters
        ----------
        root
            Folder of all runs; made where it is missing.
        run_id
            Names the run.
        meta
            What is known about the run as a whole.
        experiment
            Text of ``experiment.toml``.
        state
            What the first checkpoint holds.

        Raises
        ------
        RunExistsError
            When something of this name is there already; it is not touched.
        """
        with contextlib.ExitStack() as undo:
            with appearing_run(root, run_id) as hidden:
                (hidden / "ckpt").mkdir()
                (hidden / "inbox").mkdir()
                lock = RunLock(hidden)
                undo.callback(lock.release)
                write_whole(hidden / "experiment.toml", experiment, durable=True)
                database = Database(hidden / "run.db")
                first = checkpoints.publish(hidden / "ckpt", "initial", state)
                with database.transaction() as connection:
                    statements.set_meta(connection, meta)
                    connection.execute("INSERT INTO checkpoints VALUES (?, 0, 'start', 0, ?, ?)", first)
                database.close()  # SQLite can't write across the rename
            store = cls(run_directory(root, run_id), lock)
            undo.pop_all()
        return store

    @classmethod
    def open(cls, root: Path, run_id: str, *, take_over: bool = False) -> RunStore:
        """Open an existing run directory as its one writer.

        Raises
        ------
        UsageError
            When there is none.
        RunLockedError
            When another process is writing to it.
        """
        folder = run_directory(root, run_id)
        if not (folder / "run.db").is_file():
            raise UsageError(f"there is no run {run_id!r} in {root}; `alcore runs` lists what is there.")
        with contextlib.ExitStack() as undo:
            database = None
            if take_over:  # first, as this fails while the holder is in a transaction, and it then keeps its lock
                database = Database(folder / "run.db")
                undo.callback(database.close)
            lock = RunLock(folder, take_over=take_over)
            undo.callback(lock.release)
            store = cls(folder, lock, database)
            undo.callback(store.database.close)
            remove_litter(store.database, folder / "ckpt")
            remove_unfinished(folder)
            undo.pop_all()
        return store

    def meta(self) -> dict[str, Any]:
        """Return what is known about the run as a whole."""
        return {row["key"]: loads(row["value"]) for row in self.database.read(META)}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
        return [dict(row) for row in self.database.read(CHECKPOINTS)]

    def set_meta(self, **values: Any) -> None:
        """Commit what is known about the run as a whole; other keys stay."""
        with self.database.transaction() as connection:
            statements.set_meta(connection, values)

    def commit_query(self, step: int, asked: Sequence[Asked], records: Sequence[Record], model: str) -> None:
        """Commit the requests of a query phase together with the metrology records before it."""
        with self.database.transaction() as connection:
            statements.insert_requests(connection, asked, model)
            connection.execute("INSERT OR IGNORE INTO queries VALUES (?, ?)", (step, model))
            statements.insert_records(connection, records)

    def open_requests(self) -> list[Request]:
        """Return the requests that have no answer yet, as a label strategy is to get them.

        Oldest first; but what failed in this step already comes after the rest, in the order of failing.
        """
        rows = self.database.read(
            "SELECT r.id, r.step, r.ordinal, r.sample, r.item, r.attempt FROM requests r LEFT JOIN"
            " (SELECT request, MAX(rowid) AS place FROM refused WHERE step = (SELECT MAX(step) FROM queries)"
            "  GROUP BY request) f ON f.request = r.id"
            " WHERE r.state = 'open' ORDER BY f.place NULLS FIRST, r.step, r.ordinal"
        )
        return [request_of(row) for row in rows]

    def mark_taken(self, request: Request) -> None:
        """Commit that a label strategy is about to work on a request."""
        with self.database.transaction() as connection:
            connection.execute("UPDATE requests SET taken = 1 WHERE id = ?", (request.id,))

    def in_doubt(self) -> list[Request]:
        """Return the open requests that a label strategy had taken out and not answered, oldest first."""
        rows = self.database.read(
            "SELECT id, step, ordinal, sample, item, attempt FROM requests WHERE state = 'open' AND taken"
            " ORDER BY step, ordinal"
        )
        return [request_of(row) for row in rows]

    def settle_doubts(self, *, drop_in: int | None = None) -> None:
        """Make requests in doubt plain open ones, or set them aside as failed in the labeling phase of a step."""
        with self.database.transaction() as connection:
            if drop_in is not None:
                connection.execute(
                    "INSERT INTO refused SELECT id, ?, 'null', 'in doubt when the run was cut off, and dropped', 0, ?"
                    " FROM requests WHERE state = 'open' AND taken",
                    (drop_in, time.time()),
                )
                connection.execute(
                    "UPDATE requests SET state = 'failed', closed = ? WHERE state = 'open' AND taken", (drop_in,)
                )
            connection.execute("UPDATE requests SET taken = 0 WHERE taken")

    def end_labeling(self, step: int) -> None:
        """Commit that a labeling phase is over, where it leaves requests open; a fork begins with its labeler."""
        if self.database.read("SELECT 1 FROM requests WHERE state = 'open' LIMIT 1"):
            with self.database.transaction() as connection:
                connection.execute("UPDATE requests SET taken = 0 WHERE taken")
                statements.set_meta(connection, {"labeling_ended": step})
                statements.keep_labeler(connection, step)

    def begin_labeling(self, step: int) -> None:
        """Take back that a labeling phase is over, where one who calls the phases by hand begins it again."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key IN ('labeling_ended', 'labeler-' || ?)", (step,))

    def spent(self, before: int | None = None) -> float:
        """Return what the current labels cost, with what the open requests are expected to cost.

        Parameters
        ----------
        before
            As it was known at the query phase of this step; now where it is None.
        """
        (row,) = self.database.read(
            "SELECT COALESCE(SUM(CASE WHEN r.closed IS NULL OR r.closed >= ?1 THEN r.cost"
            " ELSE COALESCE(l.cost, 0) END), 0) AS spent"
            " FROM requests r LEFT JOIN labels l ON l.request = r.id AND l.superseded = 0 WHERE r.step < ?1",
            2**62 if before is None else before,
        )
        return float(row["spent"])

    def commit_checkpoint(
        self, step: int, phase: str, epoch: int, state: Mapping[str, Any], batches: int | None = None
    ) -> None:
        """Publish a checkpoint from within a step, and name it; after so many batches of an epoch, if that is given."""
        written = self._aside(checkpoint_name(step, phase, epoch, batches), state)
        with written as aside, self.database.transaction() as connection:
            replaced = [] if aside is None else statements.publish(connection, step, phase, epoch, aside)
        remove_unnamed(self.database, self.folder / "ckpt", replaced)

    def commit_step(
        self,
        step: int,
        record: Mapping[str, Any],
        seconds: Mapping[str, float],
        records: Sequence[Record],
        state: Mapping[str, Any] | None,
    ) -> None:
        """Commit the end of a step: its checkpoint file first, then its row and what was still uncommitted."""
        written = contextlib.nullcontext() if state is None else self._aside(checkpoint_name(step, "labeling"), state)
        with written as aside, self.database.transaction() as connection:
            replaced = [] if aside is None else statements.publish(connection, step, "labeling", 0, aside)
            statements.insert_records(connection, records)
            statements.keep_labeler(connection, step)
            connection.execute(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?)",
                (step, dumps(dict(record)), json.dumps(dict(seconds))),
            )
        remove_unnamed(self.database, self.folder / "ckpt", replaced)
        if time.monotonic() - self._exported >= 1:
            self.export()

    def export(self) -> None:
        """Rewrite the files that are made from the database."""
        try:
            with self.database.transaction():  # else one who was taken over might write over what the heir wrote
                exports.write_all(self.database, self.folder)
        except OSError as error:
            raise cant_write(self.folder, error) from error
        self._exported = time.monotonic()

    def finish(self, records: Sequence[Record], **meta: Any) -> None:
        """Commit how the run ended."""
        with self.database.transaction() as connection:
            statements.insert_records(connection, records)
            statements.set_meta(connection, meta)
        self.export()

    def close(self) -> None:
        """Close the database and let go of the lock."""
        self.database.close()
        self._lock.release()

    @contextlib.contextmanager
    def _aside(self, name: str, state: Mapping[str, Any]) -> Iterator[Aside | None]:
        try:
            with checkpoints.written_aside(self.folder / "ckpt", name, state) as aside:
                yield aside
        except StorageError:
            with self.database.transaction():  # one who took the run over may have removed the unfinished file
                raise
