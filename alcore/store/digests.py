"""Digests of the rows of a run database: how they are made, and whether the rows are as they were written.

Each row has a digest of its values, and each table one of all its rows. A row whose state changes has two: of what
never changes, and of its state.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from alcore.store.endings import OF_THE_END

CHAINED = ("steps", "requests", "labels", "refused", "queries", "records")
"""Tables whose rows are only added: the digest of each row is made from that of the row before, too."""
CHANGING = {"run": "key", "writer": "key", "label_strategy": "step", "checkpoints": "file"}
"""Tables whose rows may be replaced or deleted, by their key; their digest combines those of their rows."""

_CONSTANT = {
    "steps": "step, record, seconds",
    "requests": "id, step, ordinal, sample, item, slot, fidelity, strategy, score, rank, model, cost",
    "labels": "request, step, source, attempt, kind, value, file, cost, arrived",
    "refused": "request, step, kind, item, reason, cost, arrived",
    "queries": "step, model",
    "records": "step, strategy, ordinal, value",
}
_REAL = {
    table: [place for place, name in enumerate(columns.split(", ")) if name in ("score", "cost", "arrived")]
    for table, columns in _CONSTANT.items()
}
"""The places of the numbers that SQLite stores as floats."""
_WHOLE = {
    "run": "key, value",
    "writer": "key, value",
    "label_strategy": "step, state",
    "checkpoints": "file, step, phase, epoch, sha256, bytes",
}
_NEW = {"requests": (0, 0, "open", None, None), "labels": (0,)}
"""The state of a new row."""
_STATE = {"requests": "id, attempt, taken, state, closed, handle", "labels": "digest, superseded"}
"""The columns that a digest of a row is made of, in this order.

In tables of `CHAINED` a row has a digest of the columns that never change, `_CONSTANT`; if others may change, it has a
second one, of the columns `_STATE`: first one that identifies the row, then those that may change. In tables of
`CHANGING` it has one of all its columns, `_WHOLE`.
"""


# -- writing ----------------------------------------------------------------------------------------------


def row_digest(*values: object) -> bytes:
    """Return 16 bytes that identify the values of a row: texts, integers, floats, bytes and None.

    In SQL it is the function ``row_digest``, on connections that `prepare` was called with.
    """
    text = _FORMATS[len(values)] % values  # faster than to join them
    digest = _EMPTY.copy()  # faster than to make one
    digest.update(text.encode(errors="surrogatepass"))
    return digest.digest()


_EMPTY = hashlib.blake2b(digest_size=16)
_FORMATS = ["\0".join(["%s"] * count) for count in range(20)]


def prepare(connection: sqlite3.Connection) -> None:
    """Let a connection write: SQL computes the digests of what it changes."""
    connection.create_function("row_digest", -1, row_digest, deterministic=True)


def add_rows(connection: sqlite3.Connection, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Write new rows of a table of `CHAINED`, with their digests and the state that new rows have.

    Parameters
    ----------
    connection
        With an open transaction.
    table
        The table.
    rows
        What never changes of each row.
    """
    if not rows:
        return
    count, last = connection.execute("SELECT rows, digest FROM digests WHERE name = ?", (table,)).fetchone()
    state = (*_NEW[table], None) if table in _NEW else ()
    new: list[tuple[object, ...]] = []
    for row in rows:
        values = list(row)
        for place in _REAL[table]:
            values[place] = _stored(values[place])
        last = row_digest(last, *values)
        new.append((*values, last, *state))
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(new[0]))})", new)
    total = (count + len(new), last, table)
    connection.execute("UPDATE digests SET rows = ?, digest = ? WHERE name = ?", total)


def _stored(number: Any) -> float | None:
    """Return a number as SQLite gives it back, of which its digest is made: NaN is NULL, and no zero is negative."""
    return None if number is None or math.isnan(number) else float(number) + 0.0


def _combined(first: bytes, *others: bytes) -> bytes:
    """Return digests as one, in which each may be taken out again by adding it once more."""
    number = int.from_bytes(first, "big")
    for other in others:
        number ^= int.from_bytes(other, "big")
    return number.to_bytes(16, "big")


def replace_row(connection: sqlite3.Connection, table: str, *values: object) -> None:
    """Write a row of a table of `CHANGING`, its key first, in place of one with the same key."""
    digest, old = row_digest(*values), _digest_of(connection, table, values[0])
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places}, ?)", (*values, digest))
    _count(connection, table, not old, digest, *old)


def delete_rows(connection: sqlite3.Connection, table: str, keys: Iterable[object]) -> None:
    """Delete rows of a table of `CHANGING`; keys that it doesn't have are ignored."""
    for key in keys:
        if old := _digest_of(connection, table, key):
            connection.execute(f"DELETE FROM {table} WHERE {CHANGING[table]} = ?", (key,))
            _count(connection, table, -1, *old)


def _digest_of(connection: sqlite3.Connection, table: str, key: object) -> list[bytes]:
    """Return the digest of a row of `CHANGING` in a list, empty where there is no such row."""
    return [
        digest for (digest,) in connection.execute(f"SELECT digest FROM {table} WHERE {CHANGING[table]} = ?", (key,))
    ]


def _count(connection: sqlite3.Connection, table: str, more: int, *digests: bytes) -> None:
    """Take a change of a table of `CHANGING` into its number of rows and its digest."""
    query = "SELECT digest FROM digests WHERE name = ?"
    (before,) = connection.execute(query, (table,)).fetchone()
    connection.execute(
        "UPDATE digests SET rows = rows + ?, digest = ? WHERE name = ?", (more, _combined(before, *digests), table)
    )


def set_state(table: str, **columns: str) -> str:
    """Return the assignments of an ``UPDATE`` that changes the state of rows, their digests included.

    Parameters
    ----------
    table
        ``"requests"`` or ``"labels"``.
    **columns
        The SQL expressions of the columns that change.
    """
    state = [columns.get(name, name) for name in _STATE[table].split(", ")]
    changed = [f"{name} = {value}" for name, value in columns.items()]
    return ", ".join([*changed, f"state_digest = row_digest({', '.join(state)})"])


def make_digests(connection: sqlite3.Connection) -> None:
    """Make all digests anew, of what the tables hold now."""
    for table, columns in _CONSTANT.items():
        last, digests = row_digest(table), []
        for rowid, *values in connection.execute(f"SELECT rowid, {columns} FROM {table} ORDER BY rowid").fetchall():
            last = row_digest(last, *values)
            digests.append((last, rowid))
        connection.executemany(f"UPDATE {table} SET digest = ? WHERE rowid = ?", digests)
        connection.execute("UPDATE digests SET rows = ?, digest = ? WHERE name = ?", (len(digests), last, table))
    for table, columns in _STATE.items():
        new = " AND ".join(
            f"{name} IS {value!r}".replace("None", "NULL")
            for name, value in zip(columns.split(", ")[1:], _NEW[table], strict=True)
        )
        connection.execute(
            f"UPDATE {table} SET state_digest = row_digest({columns}) WHERE state_digest NOT NULL OR NOT ({new})"
        )
    for table, columns in _WHOLE.items():
        connection.execute(f"UPDATE {table} SET digest = row_digest({columns})")
        row_digests = [digest for (digest,) in connection.execute(f"SELECT digest FROM {table}")]
        connection.execute(
            "UPDATE digests SET rows = ?, digest = ? WHERE name = ?",
            (len(row_digests), _combined(bytes(16), *row_digests), table),
        )


# -- reading ----------------------------------------------------------------------------------------------


def any_text(text: bytes) -> str:
    """Return a text of the database whatever bytes it consists of; half of a surrogate pair for each that is wrong."""
    return text.decode(errors="surrogateescape")


class Damage(NamedTuple):
    """Something in a database that no writer has written.

    Parameters
    ----------
    what
        What it is.
    step
        The first step that may be concerned; -1 for all of them, `AFTERWARDS` where none is.
    """

    what: str
    step: int


AFTERWARDS = 2**62
"""The step of what only goes on, and matters for nothing that is committed."""


def integrity(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with the pages of the file."""
    messages = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    return [] if messages == ["ok"] else messages


def damage(connection: sqlite3.Connection) -> list[Damage]:
    """Return what in the rows of a database is not as it was written; nothing in a sound one.

    The schema must be that of `create`.
    """
    heads = {name: (rows, digest) for name, rows, digest in connection.execute("SELECT * FROM digests")}
    damages: list[Damage] = []
    for table in (*CHAINED, *CHANGING):
        damage_of = _damage_of_chain if table in CHAINED else _damage_of_set
        try:
            damages += damage_of(connection, table, heads.get(table))
        except sqlite3.DatabaseError as error:
            damages.append(Damage(f"table {table}: {error}", -1))
    return damages or list(_damage_of_links(connection))


def _damage_of_chain(connection: sqlite3.Connection, table: str, head: tuple[int, bytes] | None) -> Iterator[Damage]:
    """Yield what is wrong with a table whose rows are only added."""
    last, rows, step = row_digest(table), 0, 0
    state = _STATE.get(table)
    names = f"step, digest, {'NULL' if state is None else 'state_digest'}, {_CONSTANT[table]}"
    names += "" if state is None else f", {state}"
    count = len(_CONSTANT[table].split(","))
    more = head is None or head[0] > connection.execute(f"SELECT COUNT(*) FROM {table} NOT INDEXED").fetchone()[0]
    reader = connection.execute(f"SELECT {names} FROM {table} NOT INDEXED ORDER BY rowid")
    while True:
        try:
            row = reader.fetchone()
        except sqlite3.DatabaseError as error:
            yield Damage(f"table {table} after row {rows}: {error}", step)
            return
        if row is None:
            break
        rows += 1
        found_step, digest, state_digest, *values = row
        here = found_step if type(found_step) is int else 0
        if row_digest(last, *values[:count]) != digest:
            what = "rows are gone or changed" if more else "it is changed, or out of its order"
            yield Damage(f"row {rows} of table {table}, of step {found_step!r:.20}: {what}", min(step, here))
        elif state is not None and state_digest not in (row_digest(*values[count:]), _unchanged(table, values[count:])):
            yield Damage(f"row {rows} of table {table}, of step {here}: its state is changed", here)
        else:
            step = here
        last = digest
    if head is None or head != (rows, last):
        yield Damage(f"the end of table {table}: it has {rows} rows, and {head[0] if head else 'more'} on record", step)


def _unchanged(table: str, state: Sequence[object]) -> bytes | None:
    """Return the digest of a state that hasn't changed since its row was written, which is None; of others, none."""
    return None if tuple(state[1:]) == _NEW[table] else b""


def _damage_of_set(connection: sqlite3.Connection, table: str, head: tuple[int, bytes] | None) -> Iterator[Damage]:
    """Yield what is wrong with a table whose rows may change."""
    total, rows, wrong = bytes(16), 0, False
    of_step = "step" in _WHOLE[table]
    key = CHANGING[table]
    for digest, step, name, *values in connection.execute(
        f"SELECT digest, {'step' if of_step else '-1'}, {key}, {_WHOLE[table]} FROM {table} NOT INDEXED"
    ):
        rows += 1
        if row_digest(*values) != digest:
            wrong = True
            concerned = AFTERWARDS if table == "writer" or name in OF_THE_END else step if type(step) is int else -1
            yield Damage(f"the row {name!r:.60} of table {table}: it is changed", concerned)
        else:
            total = _combined(total, digest)
    if not wrong and (head is None or head != (rows, total)):
        concerned = -1 if table in ("run", "label_strategy") else AFTERWARDS
        yield Damage(f"table {table}: it has {rows} rows, and {head[0] if head else 'more'} on record", concerned)


def _damage_of_links(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Yield the rows that name a request that isn't there."""
    for table in ("labels", "refused"):
        for (step,) in connection.execute(
            f"SELECT t.step FROM {table} t LEFT JOIN requests r ON r.id = t.request"
            " WHERE t.request IS NOT NULL AND r.id IS NULL"
        ):
            yield Damage(f"table {table} names a request that is not there", step if type(step) is int else -1)
