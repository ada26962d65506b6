"""The formats of a run database: which one a file has, and how one of an older format becomes one of this."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alcore.errors import EncodingError, UsageError
from alcore.store import facts
from alcore.store.digests import prepare
from alcore.store.endings import facts_of_format_2
from alcore.store.files import cant_write, fsync_path
from alcore.store.schema import create as create_tables

FORMAT = 3
OLDEST = 2


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


def in_this_format(old: sqlite3.Connection) -> sqlite3.Connection:
    """Return a database in memory that holds what one of an older format does."""
    new = sqlite3.connect(":memory:", isolation_level=None)
    new.row_factory = sqlite3.Row
    _copy(old, new)
    return new


def _copy(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Make an empty database one of this format that holds what one of format 2 does."""
    old.backup(new)
    prepare(new)
    new.execute("BEGIN IMMEDIATE")
    facts.set_meta(new, facts_of_format_2(facts.meta(new)))
    new.execute(f"PRAGMA user_version = {FORMAT}")
    new.execute("COMMIT")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Put a database of this format in the place of one of an older format, by one rename.

    Parameters
    ----------
    connection
        To the old database; to be closed after this.
    path
        The file.

    Notes
    -----
    The caller holds the lock of the run, and has counted its epoch up. If the process is killed, the old database is
    there, or the new one.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as new:
            new.execute("PRAGMA synchronous = EXTRA")  # so that SQLite flushes the file
            new.row_factory = sqlite3.Row
            _copy(connection, new)
        part.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        raise cant_write(path, error) from error


def check_format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format of a database; refuse a file that this version can't read."""
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
            f"{path} has format {version}, and this version of alcore reads up to {FORMAT}; upgrade alcore."
        )
    if version < 1:
        raise UsageError(f"{path} is not a run database; it is empty, or belongs to another program.")
    if version < OLDEST:
        raise UsageError(f"{path} has format {version}, and this version of alcore reads {OLDEST} to {FORMAT}.")
    return version
