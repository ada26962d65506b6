"""The format of a run database: which one a file has, and that it is the one that this version reads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import EncodingError, UsageError
from alcore.store.schema import create as create_tables

FORMAT = 3
"""The one that alcore reads and writes since version 0.1.0."""


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise errors of decoding what a database holds as `UsageError`; it holds something else than was written then."""
    try:
        yield
    except Exception as error:
        check_decoded(path, error)
        raise


def check_decoded(path: Path, error: Exception) -> None:
    """Raise `UsageError` for an error of decoding what a database holds; return where the error is any other.

    What is raised has no name in a frame of its traceback: else they would hold each other, and the cursors of the
    query, and with these the lock of the database, until the garbage collector runs.
    """
    if isinstance(error, sqlite3.OperationalError):
        is_one = str(error).startswith("Could not decode")
    elif isinstance(error, UsageError | OSError):
        is_one = isinstance(error, EncodingError)
    else:
        kinds = (sqlite3.ProgrammingError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
        is_one = isinstance(error, kinds)
    if is_one:
        text = f"{path} can't be read, since it holds something else than was written: {error}."
        raise UsageError(text) from error


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, all at once, in an empty database."""
    connection.execute("BEGIN IMMEDIATE")
    create_tables(connection)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is no run database, or has another format."""
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.OperationalError as error:  # it may be a run database that can't be opened, or rolled back, now
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        raise UsageError(f"{path} is damaged, or no run database: {error}.") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter in the text of SQLite's own message
        raise UsageError(f"{path} is not a run database: {error}.") from error
    if version > FORMAT:
        raise UsageError(
            f"{path} has format {version}, and this version of alcore reads format {FORMAT} alone; upgrade alcore."
        )
    if version < 1:
        raise UsageError(f"{path} is not a run database; it is empty, or belongs to another program.")
    if version < FORMAT:
        raise UsageError(
            f"{path} has format {version}, which was written before alcore 0.1.0, and this version of alcore reads "
            f"format {FORMAT} alone; read it with the version that wrote it."
        )
