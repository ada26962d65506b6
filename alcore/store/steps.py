"""The steps of a run: what each did and measured, and its checkpoints."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from alcore.codec import dumps, loads
from alcore.store.database import Source, reads, writes
from alcore.store.digests import add_rows, delete_rows, replace_row
from alcore.store.rows import Record


class Totals(NamedTuple):
    """A run in figures: its finished steps, its labels, and its last metrology record."""

    steps: int
    labels: int
    record: Any


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a run, with their metrology records and their checkpoints."""

    source: Source

    @writes
    def insert(
        self, connection: sqlite3.Connection, step: int, record: Mapping[str, Any], seconds: Mapping[str, float]
    ) -> None:
        """Write the end of a step; one that a replay repeats is left as it is."""
        if not self.is_committed(step):
            add_rows(connection, "steps", [(step, dumps(dict(record)), json.dumps(dict(seconds)))])

    @reads
    def finished(self, connection: sqlite3.Connection) -> list[dict[str, Any]]:
        """Return the records of the finished steps, with ``seconds`` by phase."""
        rows = connection.execute("SELECT record, seconds FROM steps ORDER BY step")
        return [{**loads(row["record"]), "seconds": json.loads(row["seconds"])} for row in rows]

    @reads
    def record(self, connection: sqlite3.Connection, step: int) -> dict[str, Any] | None:
        """Return the record of a step, with ``seconds`` by phase; None where it is not finished."""
        row = connection.execute("SELECT record, seconds FROM steps WHERE step = ?", (step,)).fetchone()
        return None if row is None else {**loads(row["record"]), "seconds": json.loads(row["seconds"])}

    @reads
    def is_committed(self, connection: sqlite3.Connection, step: int) -> bool:
        """Return whether a step is committed as a whole."""
        return connection.execute("SELECT 1 FROM steps WHERE step = ?", (step,)).fetchone() is not None

    @reads
    def committed(self, connection: sqlite3.Connection) -> int:
        """Return the step after the last one that is committed as a whole; there may be gaps before it."""
        (step,) = connection.execute("SELECT COALESCE(MAX(step) + 1, 0) FROM steps").fetchone()
        return int(step)

    @reads
    def last(self, connection: sqlite3.Connection) -> int:
        """Return the last step of which anything is committed; -1 if there is none."""
        (step,) = connection.execute(
            "SELECT MAX(COALESCE((SELECT MAX(step) FROM steps), -1), COALESCE((SELECT MAX(step) FROM queries), -1))"
        ).fetchone()
        return int(step)

    @reads
    def first_and_last(self, connection: sqlite3.Connection) -> tuple[int, int] | None:
        """Return the first and the last step that are committed as a whole; None if there is none."""
        first, last = connection.execute("SELECT MIN(step), MAX(step) FROM steps").fetchone()
        return None if first is None else (first, last)

    @reads
    def first_training(self, connection: sqlite3.Connection) -> int | None:
        """Return the first step that had anything to train on, in a run that began with nothing labeled."""
        (step,) = connection.execute("SELECT MIN(step) + 1 FROM labels").fetchone()
        return None if step is None else int(step)

    @reads
    def totals(self, connection: sqlite3.Connection) -> Totals:
        """Return a run in figures."""
        steps, labels = connection.execute(
            "SELECT (SELECT COUNT(*) FROM steps), (SELECT COUNT(*) FROM labels WHERE superseded = 0)"
        ).fetchone()
        last = connection.execute("SELECT value FROM records ORDER BY step DESC, strategy, ordinal LIMIT 1").fetchone()
        return Totals(steps, labels, None if last is None else loads(last["value"]))

    @writes
    def insert_records(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        """Write metrology records; those that a replay repeats are left as they are."""
        query = "SELECT 1 FROM records WHERE strategy = ? AND step = ? AND ordinal = ?"
        new = [
            record
            for record in records
            if not connection.execute(query, (record.strategy, record.step, record.ordinal)).fetchone()
        ]
        add_rows(
            connection,
            "records",
            [(record.step, record.strategy, record.ordinal, dumps(record.value)) for record in new],
        )

    @reads
    def records(self, connection: sqlite3.Connection, before: int, strategy: str) -> list[Any]:
        """Return the records of a metrology strategy in the steps before this one."""
        rows = connection.execute(
            "SELECT value FROM records WHERE step < ? AND strategy = ? ORDER BY step, ordinal", (before, strategy)
        )
        return [loads(row["value"]) for row in rows]

    @reads
    def record_texts(self, connection: sqlite3.Connection, step: int, strategy: str) -> list[str]:
        """Return a metrology strategy's records of a step as they are stored."""
        rows = connection.execute(
            "SELECT value FROM records WHERE step = ? AND strategy = ? ORDER BY ordinal", (step, strategy)
        )
        return [row["value"] for row in rows]

    @reads
    def recorded_strategies(self, connection: sqlite3.Connection) -> list[str]:
        """Return the metrology strategies that have records."""
        return [strategy for (strategy,) in connection.execute("SELECT DISTINCT strategy FROM records")]

    @reads
    def records_by_strategy(self, connection: sqlite3.Connection) -> dict[str, list[Any]]:
        """Return all metrology records by strategy, in the order of steps."""
        by_strategy: defaultdict[str, list[Any]] = defaultdict(list)
        for row in connection.execute("SELECT strategy, value FROM records ORDER BY strategy, step, ordinal"):
            by_strategy[row["strategy"]].append(loads(row["value"]))
        return dict(by_strategy)

    @reads
    def checkpoints(self, connection: sqlite3.Connection) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: file, step, phase, epoch, sha256 and bytes."""
        rows = connection.execute(
            "SELECT file, step, phase, epoch, sha256, bytes FROM checkpoints"
            " ORDER BY phase <> 'start', step, phase <> 'training', epoch, file"
        )
        return [dict(row) for row in rows]

    @reads
    def checkpoint_digests(self, connection: sqlite3.Connection, step: int) -> dict[str, str]:
        """Return the SHA-256 of each checkpoint file of a step."""
        rows = connection.execute("SELECT file, sha256 FROM checkpoints WHERE step = ?", (step,))
        return {row["file"]: row["sha256"] for row in rows}

    @writes
    def name_checkpoint(
        self, connection: sqlite3.Connection, step: int, phase: str, epoch: int, file: str, sha256: str, size: int
    ) -> list[str]:
        """Name the checkpoint file of a point of the run; return the files that it replaces."""
        rows = connection.execute(
            "SELECT file FROM checkpoints WHERE step = ? AND phase = ? AND epoch = ? AND file <> ?",
            (step, phase, epoch, file),
        )
        replaced = [row["file"] for row in rows]
        self.delete_checkpoints(replaced)
        replace_row(connection, "checkpoints", file, step, phase, epoch, sha256, size)
        return replaced

    @writes
    def delete_checkpoints(self, connection: sqlite3.Connection, files: Iterable[str]) -> None:
        """Delete the rows of checkpoint files."""
        delete_rows(connection, "checkpoints", files)

    @reads
    def figures_at_checkpoints(self, connection: sqlite3.Connection) -> dict[int, dict[str, Any]]:
        """Return what was measured in each step whose end has a checkpoint.

        Returns
        -------
        dict
            By step, the figures by name, for instance ``f1`` and ``f1_metrology.f1``, then the losses of its training.
            Of equal names the first metrology strategy counts, and of its records the last.
        """
        ends = " JOIN checkpoints c ON c.step = one.step AND c.phase = 'labeling'"
        measured: defaultdict[int, defaultdict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        rows = connection.execute(f"SELECT one.step, strategy, value FROM records one{ends} ORDER BY strategy, ordinal")
        for row in rows:
            if isinstance(value := loads(row["value"]), dict):
                named = {name: figure for name, figure in value.items() if isinstance(name, str)}
                measured[row["step"]][row["strategy"]] |= named
        by_step: dict[int, dict[str, Any]] = {}
        for row in connection.execute(f"SELECT one.step, record FROM steps one{ends} ORDER BY one.step"):
            figures: dict[str, Any] = {}
            for strategy, values in measured[row["step"]].items():
                qualified = {f"{strategy}.{name}": figure for name, figure in values.items()}
                figures |= {**values, **qualified, **figures}
            by_step[row["step"]] = {**loads(row["record"]).get("losses", {}), **figures}
        return by_step
