"""What goes from one database to another, for other ranks and for forks, and what equal runs have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Mapping
from typing import Any

from alcore.store.database import Source, reads, writes
from alcore.store.digests import CHAINED, make_digests, prepare, replace_row
from alcore.store.endings import OF_THE_END
from alcore.store.formats import create
from alcore.store.labels import IS_AN_ATTEMPT
from alcore.store.rows import value_text
from alcore.store.values import LabelValues


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What ranks other than 0 get of the database of a run, large values included, and compare."""

    source: Source
    values: LabelValues

    @reads
    def image(self, connection: sqlite3.Connection) -> bytes:
        """Return the whole database as bytes, with the large values that lie beside it."""
        image, files = bytes(connection.serialize()), large_values(connection)
        if not files:
            return image
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            copy.deserialize(image)
            for file in files:
                copy.execute("UPDATE labels SET value = ? WHERE file = ?", (self.values.read(file), file))
            return bytes(copy.serialize())

    @reads
    def label_rows(self, connection: sqlite3.Connection, step: int) -> list[list[Any]]:
        """Return the labels that arrived in a step, as rows that are equal on all ranks."""
        rows = connection.execute(
            "SELECT request, step, source, attempt, kind, CASE WHEN file IS NULL THEN value END, file, cost, superseded"
            " FROM labels WHERE step = ? ORDER BY rowid",
            (step,),
        )
        return [list(row) for row in rows]

    @reads
    def label_changes(self, connection: sqlite3.Connection, step: int) -> dict[str, Any]:
        """Return what the labeling phase of a step has changed, for `apply_label_changes` on another rank.

        Large values are in it, since another rank has no files of the run.
        """
        requests = "SELECT id, attempt, taken, state, closed, handle FROM requests WHERE state = 'open' OR closed = ?"
        changes: dict[str, Any] = {
            "step": step,
            "requests": [list(row) for row in connection.execute(requests, (step,))],
        }
        for table in ("labels", "refused"):
            rows = connection.execute(f"SELECT * FROM {table} WHERE step = ? ORDER BY rowid", (step,))
            changes[table] = [
                {name: "" if "digest" in name else value for name, value in dict(row).items()} for row in rows
            ]
        for row in changes["labels"]:
            row["value"] = value_text(row, self.values.read)
        states = connection.execute("SELECT step, state FROM label_strategy ORDER BY step DESC LIMIT 1")
        return changes | {"label_strategy": [list(row) for row in states]}

    @writes
    def apply_label_changes(self, connection: sqlite3.Connection, changes: Mapping[str, Any]) -> None:
        """Write what `label_changes` returned; a replica's digests are not kept up, and not read."""
        connection.executemany(
            "UPDATE requests SET attempt = ?2, taken = ?3, state = ?4, closed = ?5, handle = ?6 WHERE id = ?1",
            changes["requests"],
        )
        for table in ("labels", "refused"):
            connection.execute(f"DELETE FROM {table} WHERE step = ?", (changes["step"],))
            for row in changes[table]:
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} VALUES ({places})", list(row.values()))
        for step, state in changes["label_strategy"]:
            replace_row(connection, "label_strategy", step, state)


def large_values(connection: sqlite3.Connection) -> list[str]:
    """Return the SHA-256 of each file that holds the value of a label."""
    return [file for (file,) in connection.execute("SELECT DISTINCT file FROM labels WHERE file IS NOT NULL")]


def copy_until(old: sqlite3.Connection, new: sqlite3.Connection, step: int) -> None:
    """Make the tables in an empty database, and write into them what another one had committed by the end of a step.

    What was closed after it is open again. The old rows up to this step must have been verified; others may be damaged.
    """
    prepare(new)
    create(new)
    for connection in (old, new):
        connection.execute("BEGIN")
    for table in (*CHAINED, "checkpoints", "label_strategy", "run"):
        wanted = "step <= ?" if table != "run" else f"key NOT IN {OF_THE_END} AND ? >= 0"
        rows = old.execute(f"SELECT * FROM {table} NOT INDEXED WHERE {wanted}", (step,))
        with contextlib.suppress(sqlite3.DatabaseError):  # in what comes later
            while (row := rows.fetchone()) is not None:
                new.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", tuple(row))
    replace_row(new, "writer", "epoch", "1")
    _open_again_after(new, step)
    make_digests(new)
    new.execute("COMMIT")
    old.execute("ROLLBACK")


def _open_again_after(connection: sqlite3.Connection, step: int) -> None:
    connection.execute(
        "UPDATE requests SET state = 'open', closed = NULL, taken = 0, attempt ="
        f" (SELECT COUNT(*) FROM refused WHERE request = requests.id AND {IS_AN_ATTEMPT})"
        " WHERE closed IS NULL OR closed > ?",
        (step,),
    )
    connection.execute(  # an answer that was corrected later is the current one again
        "UPDATE labels SET superseded = NOT (rowid IN (SELECT MAX(rowid) FROM labels GROUP BY request)"
        " AND request IN (SELECT id FROM requests WHERE state = 'labeled'))"
    )


def decisions(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows that equal runs have in common, by table: all but times, and ids made from the id of the run."""
    queries = {
        "requests": "SELECT step, ordinal, sample, item, slot, fidelity, strategy, score, rank, model, cost, attempt,"
        " state, closed, handle FROM requests ORDER BY step, ordinal",
        "labels": "SELECT r.step, r.ordinal, l.step, l.source, l.attempt, l.kind, l.value, l.file, l.cost, l.superseded"
        " FROM labels l JOIN requests r ON r.id = l.request"
        " ORDER BY r.step, r.ordinal, l.attempt, l.superseded DESC, l.rowid",
        "refused": "SELECT f.step, f.kind, f.item, f.reason, f.cost"
        " FROM refused f LEFT JOIN requests r ON r.id = f.request"
        " WHERE f.kind <> 'repeat' ORDER BY f.step, r.step, r.ordinal, f.rowid",
        "queries": "SELECT step, model FROM queries ORDER BY step",
        "records": "SELECT strategy, step, ordinal, value FROM records ORDER BY strategy, step, ordinal",
        "steps": "SELECT step, record FROM steps ORDER BY step",
    }
    return {table: [tuple(row) for row in connection.execute(query)] for table, query in queries.items()}
