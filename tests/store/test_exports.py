"""Exports say what the database says, in JSON that any program reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alcore.store import exports, facts
from alcore.store.answers import AnswerWriter
from alcore.store.database import Database
from alcore.store.rows import Record
from alcore.store.steps import Steps


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "run.db")
    yield database
    database.close()


def fill(database: Database) -> None:
    records = [("f1", 10, 0, {"f1": 0.75}), ("f1", 2, 1, {"f1": float("nan")}), ("f1", 2, 0, (1, np.float32(0.5)))]
    with database.transaction() as connection:
        facts.set_meta(connection, {"seed": 3})
        for step in (10, 2):
            Steps(database).insert(step, {"step": step}, {"query": 0.5})
        entries = [Record(step, strategy, ordinal, value) for strategy, step, ordinal, value in records]
        Steps(database).insert_records([*entries, Record(0, "other-2", 0, 1)])
        writer = AnswerWriter(connection, 2)
        writer.refuse(None, "7", "nobody asked", kind="timeout", cost=2)
        writer.end()


def write(database: Database, folder: Path) -> None:
    database.read(lambda connection: exports.write_all(connection, folder))


def strict(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(word))


def test_export_is_the_log_and_a_file_for_each_strategy(tmp_path: Path, database: Database) -> None:
    fill(database)
    write(database, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["driver_log.json", "f1.json", "other-2.json", "run.db"]
    assert strict(tmp_path / "driver_log.json") == {
        "seed": 3,
        "steps": [{"step": 2, "seconds": {"query": 0.5}}, {"step": 10, "seconds": {"query": 0.5}}],
        "refused": [
            {"request": None, "step": 2, "kind": "timeout", "item": "7", "reason": "nobody asked", "cost": 2.0}
        ],
    }
    assert strict(tmp_path / "f1.json") == [[1, 0.5], {"f1": None}, {"f1": 0.75}]
    assert strict(tmp_path / "other-2.json") == [1]


def test_records_keep_their_types_in_memory(database: Database) -> None:
    fill(database)
    values = Steps(database).records_by_strategy()["f1"]
    assert values[0] == (1, 0.5)
    assert type(values[0][1]) is np.float32
    assert np.isnan(values[1]["f1"])


def test_export_of_an_empty_run(tmp_path: Path, database: Database) -> None:
    write(database, tmp_path)
    assert strict(tmp_path / "driver_log.json") == {"steps": [], "refused": []}


def test_second_export_gives_the_same_bytes(tmp_path: Path, database: Database) -> None:
    fill(database)
    write(database, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    write(database, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
