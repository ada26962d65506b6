"""What the transactions of a run's writer write, table by table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alcore.codec import dumps
from alcore.store.checkpoints import Aside
from alcore.store.database import Database
from alcore.store.filenames import is_of_checkpoint
from alcore.store.history import Asked


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of a metrology strategy: the step, the strategy, its place among that step's, the value."""

    step: int
    strategy: str
    ordinal: int
    value: Any


def set_meta(connection: Any, values: Mapping[str, Any]) -> None:
    """Write what is known about the run as a whole; other keys stay."""
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, dumps(value)) for key, value in values.items()],
    )


def insert_requests(connection: Any, asked: Sequence[Asked], model: str) -> None:
    """Write what a query phase asked for."""
    connection.executemany(
        "INSERT INTO requests(id, step, ordinal, sample, item, strategy, score, rank, model, cost)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                ask.request.id,
                ask.request.step,
                ask.request.ordinal,
                ask.sample,
                None if ask.sample is not None else dumps(ask.request.item),
                ask.strategy,
                ask.score,
                ask.rank,
                model,
                ask.cost,
            )
            for ask in asked
        ],
    )


def insert_records(connection: Any, records: Sequence[Record]) -> None:
    """Write metrology records, less those that are there."""
    connection.executemany(
        "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)",  # a replayed step has them already
        [(record.step, record.strategy, record.ordinal, dumps(record.value)) for record in records],
    )


def keep_labeler(connection: Any, step: int) -> None:
    """Keep the labeler's state at the end of a step's labeling phase, for forks; not that of a replay or later."""
    connection.execute(
        "INSERT OR IGNORE INTO meta SELECT 'labeler-' || ?1, value FROM meta WHERE key = 'labeler'"
        " AND NOT EXISTS (SELECT 1 FROM steps WHERE step = ?1)",
        (step,),
    )


def publish(connection: Any, step: int, phase: str, epoch: int, aside: Aside) -> list[str]:
    """Give a checkpoint its name, in the folder and in the database; return the files that it takes the place of.

    All in one transaction, which only the run's one writer can have: nobody else names a file meanwhile.
    """
    named = dict(connection.execute("SELECT file, sha256 FROM checkpoints WHERE step = ?", (step,)))
    published = aside.publish(named)
    replaced = [file for file in named if file != published.file and is_of_checkpoint(file, aside.name)]
    connection.executemany("DELETE FROM checkpoints WHERE file = ?", [(file,) for file in replaced])
    connection.execute(
        "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)",
        (published.file, step, phase, epoch, published.sha256, published.bytes),
    )
    return replaced


_REQUEST = ("id", "attempt", "taken", "state", "closed")


def labels_of(database: Database, step: int) -> dict[str, Any]:
    """Return what the labeling phase of a step has changed: rows by table, for `put_labels` on another rank."""
    columns = ", ".join(_REQUEST)
    tables = {
        "requests": f"SELECT {columns} FROM requests WHERE state = 'open' OR closed = ?1",
        "refused": "SELECT * FROM refused WHERE step = ?1 ORDER BY rowid",
    }
    return {table: [list(row) for row in database.read(query, step)] for table, query in tables.items()} | {
        "step": step,
        "labels": label_rows(database, step),
        "labeler": [row["value"] for row in database.read("SELECT value FROM meta WHERE key = 'labeler'")],
    }


def label_rows(database: Database, step: int) -> list[list[Any]]:
    """Return the labels that arrived in a step, as rows."""
    return [list(row) for row in database.read("SELECT * FROM labels WHERE step = ? ORDER BY rowid", step)]


def put_labels(connection: Any, found: Mapping[str, Any]) -> None:
    """Write what `labels_of` returned."""
    connection.executemany(
        "UPDATE requests SET attempt = ?2, taken = ?3, state = ?4, closed = ?5 WHERE id = ?1", found["requests"]
    )
    for table, columns in (("labels", 9), ("refused", 6)):
        connection.execute(f"DELETE FROM {table} WHERE step = ?", (found["step"],))
        places = ", ".join("?" * columns)
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", found[table])
    connection.executemany("INSERT OR REPLACE INTO meta VALUES ('labeler', ?)", [(one,) for one in found["labeler"]])
