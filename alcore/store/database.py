"""The SQLite file of a run: its tables, and transactions that only the run's one writer can commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import RunLockedError, StaleWriterError, UsageError
from alcore.store.files import cant_write

FORMAT = 1

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE steps(
    step INTEGER PRIMARY KEY,
    record TEXT NOT NULL,       -- what the step did, the same in every run of this experiment
    seconds TEXT NOT NULL);     -- how long its phases took
CREATE TABLE requests(
    id TEXT PRIMARY KEY,
    step INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    sample INTEGER, item TEXT,  -- a sample id, or a generated input: exactly one of the two
    strategy TEXT NOT NULL, score REAL, rank INTEGER NOT NULL, model TEXT NOT NULL,
    cost REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    taken INTEGER NOT NULL DEFAULT 0,  -- the label strategy has taken it out, and not answered yet
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'labelled', 'failed')),
    closed INTEGER,             -- the step in which it was labelled or given up
    UNIQUE (step, ordinal),
    CHECK ((sample IS NULL) <> (item IS NULL)));
CREATE INDEX open_requests ON requests(step, ordinal) WHERE state = 'open';
CREATE TABLE labels(
    request TEXT NOT NULL REFERENCES requests(id),
    step INTEGER NOT NULL,      -- the step in which it arrived
    source TEXT NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('id', 'label', 'object')),
    value TEXT,                 -- NULL for a bare id: the pool knows the answer
    cost REAL NOT NULL,
    superseded INTEGER NOT NULL DEFAULT 0,  -- a later answer of this source took its place
    arrived REAL NOT NULL);
CREATE UNIQUE INDEX current_label ON labels(request) WHERE superseded = 0;
CREATE TABLE refused(
    request TEXT, step INTEGER NOT NULL, item TEXT NOT NULL, reason TEXT NOT NULL,
    repeat INTEGER NOT NULL,    -- the same answer once more: nothing is wrong with it
    arrived REAL NOT NULL);
CREATE TABLE queries(           -- the query phases that are committed, with the model that chose
    step INTEGER PRIMARY KEY, model TEXT NOT NULL);
CREATE TABLE records(
    step INTEGER NOT NULL, strategy TEXT NOT NULL, ordinal INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (strategy, step, ordinal)) WITHOUT ROWID;
CREATE TABLE checkpoints(
    file TEXT PRIMARY KEY,
    step INTEGER NOT NULL, phase TEXT NOT NULL, epoch INTEGER NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""


class Database:
    """The writer's connection.

    Parameters
    ----------
    path
        The database file; it is made, with its tables, where it is missing.
    mirror
        Whether the file is this process's copy of another one, which need not survive a crash.

    Notes
    -----
    The rollback journal is deleted at each commit, and synchronous is EXTRA: what a transaction committed
    survives a crash of the machine. Each transaction checks that nobody else took the run over.
    """

    def __init__(self, path: Path, *, mirror: bool = False) -> None:
        new = not path.exists()
        self._path, self._lock = path, threading.RLock()
        self._process, self._closed = os.getpid(), False
        with self._telling():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
            try:
                if mirror:
                    self._connection.execute("PRAGMA synchronous = OFF")
                    self._epoch = self._stored_epoch()
                else:
                    self._open(path, new)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, path: Path, new: bool) -> None:
        if not new:
            check_format(self._connection, path)
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = EXTRA")
        if new:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
            self._epoch = 1
            self._connection.execute("INSERT INTO meta VALUES ('epoch', '1')")
        else:
            self._connection.execute("BEGIN IMMEDIATE")
            self._epoch = self._stored_epoch() + 1
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (str(self._epoch),))
            self._connection.execute("COMMIT")

    def check_usable(self) -> None:
        """Refuse to write after the end, or in a forked child, where SQLite would corrupt the file.

        Raises
        ------
        UsageError
            Naming the remedy.
        """
        run = self._path.parent.name
        if os.getpid() != self._process:
            raise UsageError(
                f"run {run} is written to by process {self._process}, and this is process {os.getpid()}, forked from "
                "it: give what was computed back to the parent (a pool's future, a pipe, a queue), and let it put that."
            )
        if self._closed:
            raise UsageError(
                f"run {run} has ended, so nothing is written to it any more, and what was put is not stored: keep it, "
                f"resume the run (alcore resume {run}, or Driver.restore), and put it then."
            )

    @property
    def committing(self) -> bool:
        """Whether a transaction is under way."""
        return self._connection.in_transaction

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block writes, all of it or nothing; usable from any thread.

        Raises
        ------
        StaleWriterError
            When another process took the run over.
        UsageError
            As `check_usable` does.
        """
        self.check_usable()
        with self._lock, self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._stored_epoch() != self._epoch:
                    raise StaleWriterError("another process took this run over; this one stops writing to it.")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, *parameters: object) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._lock, self._telling():  # what another transaction left half done may have to be undone first
            cursor = self._connection.cursor()
            cursor.row_factory = sqlite3.Row
            return cursor.execute(query, parameters).fetchall()

    def image(self) -> bytes:
        """Return the whole database as bytes."""
        with self._lock:
            return bytes(self._connection.serialize())

    def close(self) -> None:
        """Close the connection; calling it again does nothing."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say of a full disk or an I/O error where it was met; what was under way is rolled back."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise RunLockedError(
                    f"{self._path} has been in the middle of another process's transaction for a minute: end that "
                    "process, which may be a stopped one, and resume the run; what it had not committed is rolled back."
                ) from error
            raise cant_write(self._path, error) from error

    def _stored_epoch(self) -> int:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        return int(row[0])


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that this version can't read."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError:  # it may well be one, and can't be opened, or rolled back, now
        raise
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is not a run database: {error}.") from error
    if version > FORMAT:
        raise UsageError(
            f"{path} has format {version}, and this version of alcore reads up to {FORMAT}; upgrade alcore."
        )
    if version < 1:
        raise UsageError(f"{path} is not a run database; it is empty, or belongs to another program.")
