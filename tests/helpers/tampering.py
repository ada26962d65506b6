"""Change the database of a run as no writer does."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alcore.store import digests


@contextlib.contextmanager
def forged(run: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection to the database of a run, and make its digests anew at the end, so that it seems whole."""
    with contextlib.closing(sqlite3.connect(run / "run.db", isolation_level=None)) as connection:
        digests.prepare(connection)
        connection.execute("BEGIN")
        yield connection
        digests.make_digests(connection)
        connection.execute("COMMIT")
