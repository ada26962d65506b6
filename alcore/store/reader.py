"""Reads of a run database that may be written meanwhile: each opens the file, fetches, and closes it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from alcore.errors import UsageError
from alcore.store.files import check_run_folder
from alcore.store.formats import check_format, decoding
from alcore.store.lock import held_error, is_locked

_TIMEOUT = 10.0  # seconds to wait for a transaction of the writer

T = TypeVar("T")


class Reader:
    """The database of a run, for all but its writer.

    Parameters
    ----------
    folder
        The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a query reads, of what is committed."""
        with self.connection() as connection:
            return query(connection)

    def write(self, _change: Callable[[sqlite3.Connection], T], /) -> T:
        """Refuse to write."""
        raise UsageError(f"{self._folder / 'run.db'} is open for reading: only the writer of a run changes it.")

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Give a connection, and close it; errors of the database are raised as `UsageError`."""
        path = self._folder / "run.db"
        check_run_folder(self._folder, whole=False)
        try:
            # rw, since what a killed writer left half done must be rolled back before anything can be read
            with (
                decoding(path),
                contextlib.closing(
                    sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT)
                ) as connection,
            ):
                connection.execute("PRAGMA query_only = ON")
                connection.row_factory = sqlite3.Row
                check_format(connection, path)
                yield connection
        except sqlite3.Error as error:
            # a writer that was stopped inside a transaction lets nobody read
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY and is_locked(self._folder):
                raise held_error(self._folder) from error
            raise UsageError(f"{path} can't be read: {error}.") from error
