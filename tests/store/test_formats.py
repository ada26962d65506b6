"""A run directory of format 2 becomes one of this format when it is opened to write, at once or not at all."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_model.power import PowerCut

from alcore.errors import StaleWriterError, UsageError
from alcore.protocols import EndKind, EndReason
from alcore.store import facts
from alcore.store.database import Database
from alcore.store.endings import end_of
from alcore.store.files import StorageError
from alcore.store.formats import FORMAT
from alcore.store.reading import Run
from alcore.store.run import RunStore

GOLDEN = Path(__file__).parent / "golden" / "format-2-budget"
"""Written with `test_golden.build`, 8 steps and a budget of 7.5 of which half a label is left, on commit 715d10d."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of format 2 in the root ``tmp_path``."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


def version(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def everything(folder: Path) -> dict[str, Any]:
    run = Run(folder)
    return {
        **run.decisions(), "meta": run.meta(), "all": run.requests(), "aside": run.refused(), "files": run.checkpoints()
    }  # fmt: skip


def test_end_of_a_run_gets_its_kind_and_all_else_stays(old: Path) -> None:
    before = (old / "run.db").read_bytes()
    meta = Run(old).meta()
    assert (old / "run.db").read_bytes() == before
    assert end_of(meta) == EndReason(EndKind.BUDGET, "the budget of 7.5 is spent")
    assert (meta["status"], meta["budget"]) == ("done", 7.5)
    with contextlib.closing(sqlite3.connect(old / "run.db")) as connection:
        query = "SELECT * FROM {} ORDER BY rowid"
        tables_of = ("steps", "requests", "labels", "refused", "queries", "records")
        rows = {table: connection.execute(query.format(table)).fetchall() for table in tables_of}
        RunStore.open(old.parent, old.name).close()
        assert {table: connection.execute(query.format(table)).fetchall() for table in tables_of} == rows
    assert version(old) == FORMAT
    assert Run(old).meta() == meta
    Run(old).verify()


def test_reading_and_opening_give_the_same(old: Path) -> None:
    before = everything(old)
    RunStore.open(old.parent, old.name).close()
    assert version(old) == FORMAT
    assert everything(old) == before
    assert {path.name for path in old.iterdir()} - {"lock"} == {path.name for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("point", range(30))
def test_process_that_is_killed_leaves_the_old_run_or_the_new_one(old: Path, tmp_path: Path, point: int) -> None:
    expected, power, kept = everything(old), PowerCut(), tmp_path / "next" / "golden"
    try:
        power.left = point
        with power.over(old, kept):
            RunStore.open(old.parent, old.name).close()
    finally:
        power.patches.undo()
    if not kept.exists():
        assert point > 5, "there are fewer points than were thought"
        return
    assert everything(kept) == expected
    RunStore.open(kept.parent, kept.name).close()
    assert (version(kept), everything(kept)) == (FORMAT, expected)
    assert {path.name for path in kept.iterdir()} - {"lock"} == {path.name for path in GOLDEN.iterdir()}


def test_new_database_is_in_its_place_on_the_disk(old: Path, disk_events: list[tuple[str, str | bytes]]) -> None:
    RunStore.open(old.parent, old.name).close()
    assert disk_events == [("rename", "run.db"), ("fsync folder", "golden")]


def test_new_database_is_flushed_before_it_is_renamed(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does it, at its commit, where it is told to."""
    said: list[str] = []

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            said.append(statement)
            return super().execute(statement, *parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Connection, **more))
    monkeypatch.setattr(Path, "replace", lambda *args: said.append("replace"))
    RunStore.open(old.parent, old.name).close()
    place = said.index("replace")
    assert "PRAGMA synchronous = EXTRA" in said[:place]
    assert "COMMIT" in said[:place]


@pytest.mark.parametrize("where", ["alcore.store.formats.fsync_path", "pathlib.Path.replace"])
def test_full_disk_leaves_the_old_run_or_the_new_one(old: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    expected = everything(old)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(StorageError, match="No space left"):
            RunStore.open(old.parent, old.name)
    assert (version(old), everything(old)) == (FORMAT if "fsync" in where else 2, expected)
    RunStore.open(old.parent, old.name).close()


def test_older_writer_that_lives_on_writes_no_more(old: Path) -> None:
    """As where locks don't work: it has counted its opening, and finds that somebody has counted after it."""
    other = sqlite3.connect(old / "run.db", isolation_level=None)
    epoch = "SELECT value FROM writer WHERE key = 'epoch'"
    (mine,) = other.execute(epoch).fetchone()
    RunStore.open(old.parent, old.name).close()
    assert int(other.execute(epoch).fetchone()[0]) > int(mine)
    other.close()


def test_database_of_format_2_is_migrated_when_it_is_opened_alone(old: Path) -> None:
    first = Database(old / "run.db")
    second = Database(old / "run.db")
    with pytest.raises(StaleWriterError), first.transaction():
        pass
    with second.transaction() as connection:
        facts.set_meta(connection, {"status": "running"})
    for database in (first, second):
        database.close()


@pytest.mark.parametrize("act", [lambda folder: Run(folder).meta(), lambda folder: Database(folder / "run.db")])
def test_newer_format_is_refused_clearly(old: Path, act: Callable[[Path], Any]) -> None:
    with contextlib.closing(sqlite3.connect(old / "run.db")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = (old / "run.db").read_bytes()
    with pytest.raises(UsageError, match=rf"has format {FORMAT + 1}, and this version of alcore reads up to {FORMAT}"):
        act(old)
    assert (old / "run.db").read_bytes() == before


@pytest.mark.parametrize("act", [lambda folder: Run(folder).meta(), lambda folder: Database(folder / "run.db")])
def test_format_before_any_release_is_refused_clearly(old: Path, act: Callable[[Path], Any]) -> None:
    with contextlib.closing(sqlite3.connect(old / "run.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(UsageError, match=rf"has format 1, and this version of alcore reads 2 to {FORMAT}"):
        act(old)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON labels BEGIN SELECT 1; END", "'evil'"),
        ("CREATE VIEW evil AS SELECT 1", "'evil'"),
        ("UPDATE labels SET cost = 9 WHERE step = 1", "table labels"),
    ],
)
def test_damaged_run_of_the_older_format_is_refused_and_stays(old: Path, statement: str, what: str) -> None:
    with contextlib.closing(sqlite3.connect(old / "run.db")) as connection:
        connection.execute(statement)
        connection.commit()
    before = (old / "run.db").read_bytes()
    for act in (lambda: RunStore.open(old.parent, old.name), Run(old).verify):
        with pytest.raises(UsageError, match=what):
            act()
    assert (old / "run.db").read_bytes() == before
