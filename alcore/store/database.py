"""The SQLite file of a run: transactions that only the run's one writer can commit."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from alcore.errors import RunLockedError, StaleWriterError, UsageError
from alcore.store.digests import prepare, replace_row
from alcore.store.files import cant_write
from alcore.store.formats import check_decoded, check_format, create
from alcore.store.verification import check_sound

P = ParamSpec("P")
T = TypeVar("T")


class Source(Protocol):
    """What gives a connection, whose rows can be indexed by column name, to the queries of a run."""

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a query reads, of what is committed at one moment."""

    def write(self, change: Callable[[sqlite3.Connection], T], /) -> T:
        """Commit what a function writes, all of it or nothing; return what it returns."""


class Subject(Protocol):
    """What has the SQL of one subject: `Requests`, `Labels`, `Steps` and others."""

    @property
    def source(self) -> Source:
        """What gives the connection."""


S = TypeVar("S", bound=Subject)


def reads(query: Callable[Concatenate[S, sqlite3.Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Mark a method that reads: it is called without the connection, which its source gives."""

    @functools.wraps(query)
    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.source.read(lambda connection: query(self, connection, *args, **kwargs))

    return method


def writes(change: Callable[Concatenate[S, sqlite3.Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Mark a method that writes: it is called without the connection, which its source gives.

    What it writes is committed when it returns; inside an open transaction it is committed with that one.
    """

    @functools.wraps(change)
    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.source.write(lambda connection: change(self, connection, *args, **kwargs))

    return method


class Opened:
    """A source whose connection is the caller's, as its transaction is."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a query reads."""
        return query(self._connection)

    write = read


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
                    self._epoch = self._stored_epoch()
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
            check_format(self._connection, path)
            check_sound(self._connection, path)
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = EXTRA")
        if new:
            create(self._connection)
        self._count_epoch()

    def _count_epoch(self) -> None:
        """Count how often the database was opened for writing."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._epoch = self._stored_epoch() + 1
        replace_row(self._connection, "writer", "epoch", str(self._epoch))
        self._connection.execute("COMMIT")

    def _stored_epoch(self) -> int:
        row = self._connection.execute("SELECT value FROM writer WHERE key = 'epoch'").fetchone()
        return 0 if row is None else int(row[0])

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

        Inside another one it is a part of that one, which an error of it has to end.

        Raises
        ------
        StaleWriterError
            If another process has opened the run for writing since.
        UsageError
            As `check_usable` does.
        """
        self.check_usable()
        with self._lock, self._storage_errors():
            if self._writing:
                yield self._connection
                return
            self._writing = True
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                if self._stored_epoch() != self._epoch:
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

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function returns, whose changes are committed as by `transaction`."""
        with self.transaction() as connection:
            return change(connection)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a query reads, of what is committed at one moment.

        Usable from any thread, and inside a transaction or another query.
        """
        with self._lock:
            inside = self._writing or self._connection.in_transaction
            try:
                if inside:
                    return query(self._connection)
                self._connection.execute("BEGIN")  # may have to roll back what a killed writer left half done
                try:
                    return query(self._connection)
                except Exception as error:
                    check_decoded(self._path, error)
                    raise
                finally:
                    if self._connection.in_transaction:  # an I/O error may have ended it
                        self._connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                raise self._storage_error(error) from error

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
