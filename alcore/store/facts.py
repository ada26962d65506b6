"""What is known about a run as a whole: rows of a key and a value.

Each function gets a connection whose rows can be indexed by column name; transactions are the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from alcore.codec import dumps, loads
from alcore.store.digests import replace_row

PREPROCESSING = "preprocessing"
"""The key of the table ``run`` that has how the data makes inputs of a file."""


def meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what is known about the run as a whole, without what `preprocessing` returns, which may be large."""
    rows = connection.execute("SELECT key, value FROM run WHERE key != ? ORDER BY key", (PREPROCESSING,))
    return {row["key"]: loads(row["value"]) for row in rows}


def preprocessing(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Return how the data makes inputs of a file, as the data described it when the run began; None if it did not."""
    row = connection.execute("SELECT value FROM run WHERE key = ?", (PREPROCESSING,)).fetchone()
    return None if row is None else dict(loads(row["value"]))


def set_meta(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Write what is known about the run as a whole; other keys stay."""
    for key, value in values.items():
        replace_row(connection, "run", key, dumps(value))


def utc_now() -> str:
    """Return the time in UTC, to the second: the form of ``started`` and ``ended``."""
    return datetime.now(UTC).isoformat(timespec="seconds")
