"""The SQLite file of a run: transactions that only the run's one writer can commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from alcore.errors import RunLockedError, StaleWriterError, UsageError
from alcore.store import tables
from alcore.store.digests import prepare
from alcore.store.files import cant_write
from alcore.store.formats import FORMAT, check_format, create, migrate, undecodable
from alcore.store.verification import check_sound

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """The writer's connection.

    Parameters
    ----------
    path
        The database file; it is made, with its tables, if it does not exist.
    replica
        Whether the file is this process's copy of another one, which need not survive a crash.

    Notes
    -----
    The rollback journal is deleted at each commit, and synchronous is EXTRA: what a transaction committed
    survives a crash of the machine. Opening the database for writing counts its epoch up, and each transaction
    checks that the epoch is still its own: where locks of files do not work, a second writer ends the first.
    """

    def __init__(self, path: Path, *, replica: bool = False) -> None:
        new = not path.exists()
        self._path, self._lock = path, threading.RLock()
        self._process, self._closed, self._writing = os.getpid(), False, False
        with self._storage_errors():
            self._connection = self._connect()
            try:
                if replica:
                    self._connection.execute("PRAGMA synchronous = OFF")
                    self._epoch = tables.epoch(self._connection)
                else:
                    self._open(path, new)
            except BaseException:
                self._connection.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=60)
        connection.row_factory = sqlite3.Row
        prepare(connection)
        return connection

    def _open(self, path: Path, new: bool) -> None:
        if not new:
            version = check_format(self._connection, path)
            check_sound(self._connection, path)
            if version < FORMAT:
                migrate(self._connection, path)
                self._connection.close()
                self._connection = self._connect()
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = EXTRA")
        if new:
            create(self._connection)
            self._epoch = 1
            self._connection.execute("BEGIN IMMEDIATE")
            tables.set_epoch(self._connection, 1)
            self._connection.execute("COMMIT")
        else:
            self._connection.execute("BEGIN IMMEDIATE")
            self._epoch = tables.epoch(self._connection) + 1
            tables.set_epoch(self._connection, self._epoch)
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
        """Whether something is being written."""
        return self._writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block writes, all of it or nothing; usable from any thread.

        Raises
        ------
        StaleWriterError
            If another process has opened the run for writing since.
        UsageError
            As `check_usable` does.
        """
        self.check_usable()
        with self._lock, self._storage_errors():
            self._writing = True
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                if tables.epoch(self._connection) != self._epoch:
                    raise StaleWriterError(
                        "another process has opened this run for writing since, so this one writes no more to it."
                    )
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._writing = False

    def read(self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function of `alcore.store.tables` reads, of what is committed at one moment.

        Usable from any thread, and inside a transaction.
        """
        with self._lock:
            try:
                if self._writing:
                    return query(self._connection, *args, **kwargs)
                self._connection.execute("BEGIN")  # may have to roll back what a killed writer left half done
                try:
                    return query(self._connection, *args, **kwargs)
                except Exception as error:
                    if (fault := undecodable(self._path, error)) is not None:
                        raise fault from error
                    raise
                finally:
                    if self._connection.in_transaction:  # an I/O error may have ended it
                        self._connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                raise self._storage_error(error) from error

    def image(self, read_value: tables.ReadValue) -> bytes:
        """Return the whole database as bytes, with the large values that lie beside it."""
        with self._lock:
            image, files = bytes(self._connection.serialize()), self.read(tables.large_values)
        if not files:
            return image
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            copy.deserialize(image)
            for file in files:
                tables.take_value_in(copy, file, read_value(file))
            return bytes(copy.serialize())

    def close(self) -> None:
        """Close the connection; calling it again does nothing."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Raise errors of the disk or of a lock as alcore's errors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._storage_error(error) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a row that a table refuses, for instance
                raise
            raise UsageError(f"{self._path} is damaged: {error}. Restore the run directory from a copy.") from error

    def _storage_error(self, error: sqlite3.OperationalError) -> Exception:
        """Return what to raise for a full disk, an I/O error or a locked database, with the remedy."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            return RunLockedError(
                f"{self._path} has been in the middle of another process's transaction for a minute: end that "
                "process, which may be a stopped one, and resume the run; what it had not committed is rolled back."
            )
        return cant_write(self._path, error)
