"""A run directory of format 1 becomes one of this format when it is opened to write, at once or not at all."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_model.power import PowerCut

from alcore.codec import dumps
from alcore.errors import StaleWriterError, UsageError
from alcore.store import tables
from alcore.store.database import Database
from alcore.store.files import StorageError
from alcore.store.formats import FORMAT
from alcore.store.reading import Run
from alcore.store.run import RunStore

GOLDEN = Path(__file__).parent / "golden" / "format-1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of format 1 in the root ``tmp_path``, with more in it than the golden one."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "golden"))
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as connection:
        connection.executescript(
            "UPDATE requests SET state = 'failed', attempt = 2 WHERE step = 1 AND ordinal = 2;"
            "DELETE FROM labels WHERE request IN (SELECT id FROM requests WHERE state = 'failed');"
            "INSERT INTO requests VALUES ('open', 2, 0, 12, NULL, 'q', 0.5, 0, 'm', 2.0, 1, 1, 'open', NULL);"
            "INSERT INTO requests VALUES ('twice', 2, 1, 6, NULL, 'q', NULL, 0, 'm', 2.0, 0, 0, 'labelled', 2);"
            "INSERT INTO requests VALUES ('input', 2, 2, NULL, '[1]', 'q', NULL, 0, 'm', 2.0, 0, 0, 'labelled', 2);"
            "INSERT INTO labels VALUES ('twice', 2, 'ann', 0, 'label', '1', 2.5, 1, 7.0);"
            "INSERT INTO labels VALUES ('twice', 2, 'ann', 0, 'label', '0', 2.5, 0, 8.0);"
            "INSERT INTO labels VALUES ('input', 2, '', 0, 'object', '[1]', 0.0, 0, 9.0);"
            "INSERT INTO refused VALUES ('open', 2, '7', 'it broke', 0, 8.5);"
            "INSERT INTO refused VALUES (NULL, 2, '7', 'known', 1, 8.5);"
            "INSERT INTO refused VALUES (NULL, 2, '7', 'in doubt when the run was cut off, and dropped', 0, 8.5);"
            "INSERT INTO meta VALUES ('labeling_ended', '2'); INSERT INTO meta VALUES ('inbox_file', '\"a.json\"');"
        )
        for step, key in ((0, "labeler-0"), (1, "labeler-1"), (2, "labeler")):
            connection.execute("INSERT INTO meta VALUES (?, ?)", (key, dumps(dumps({"step": step, "strategy": {}}))))
        connection.commit()
    return folder


def version(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def everything(folder: Path) -> dict[str, Any]:
    run = Run(folder)
    return {
        **run.decisions(), "meta": run.meta(), "all": run.requests(), "aside": run.refused(), "files": run.checkpoints()
    }  # fmt: skip


def test_everything_is_there_under_its_new_name(old: Path) -> None:
    before = (old / "run.db").read_bytes()
    run = Run(old)
    rows = {(one["step"], one["ordinal"]): one for one in run.requests()}
    assert [(one["slot"], one["state"], one["attempt"], one["value"], one["handle"]) for one in rows.values()][5:] == [
        (0, "failed", 2, None, None), (0, "open", 1, None, None), (1, "labeled", 0, "0", None),
        (0, "labeled", 0, "[1]", None),
    ]  # fmt: skip
    assert [(one["kind"], one["cost"]) for one in run.refused()] == [
        ("refused", None), ("repeat", None), ("dropped", None),
    ]  # fmt: skip
    assert {"labeler", "epoch", "inbox_file"}.isdisjoint(run.meta())
    assert (old / "run.db").read_bytes() == before
    store = RunStore.open(old.parent, old.name)
    assert (version(old), store.inbox_file(), store.labeling(2).ended) == (FORMAT, "a.json", True)
    assert store.label_strategy_state() == dumps({"step": 2, "strategy": {}})
    states = run.read("SELECT step FROM label_strategy ORDER BY step")
    assert [row["step"] for row in states] == [0, 1, 2]
    assert [one.id for one in store.in_flight()] == ["open"]
    store.close()


def test_reading_and_opening_give_the_same(old: Path) -> None:
    before = everything(old)
    RunStore.open(old.parent, old.name).close()
    assert version(old) == FORMAT
    assert everything(old) == before
    assert {one.name for one in old.iterdir()} - {"lock"} == {one.name for one in GOLDEN.iterdir()}


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
    assert {one.name for one in kept.iterdir()} - {"lock"} == {one.name for one in GOLDEN.iterdir()}


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
    with pytest.raises(StorageError, match="no such table"):  # the old one is still there
        RunStore.open(old.parent, old.name)
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
    assert (version(old), everything(old)) == (FORMAT if "fsync" in where else 1, expected)
    RunStore.open(old.parent, old.name).close()


def test_older_writer_that_lives_on_writes_no_more(old: Path) -> None:
    """As where locks don't work: it has counted its opening, and finds that somebody has counted after it."""
    other = sqlite3.connect(old / "run.db", isolation_level=None)
    epoch = "SELECT value FROM meta WHERE key = 'epoch'"
    (mine,) = other.execute(epoch).fetchone()
    RunStore.open(old.parent, old.name).close()
    assert int(other.execute(epoch).fetchone()[0]) > int(mine)
    other.close()


def test_database_of_format_1_is_migrated_when_it_is_opened_alone(old: Path) -> None:
    first = Database(old / "run.db")
    second = Database(old / "run.db")
    with pytest.raises(StaleWriterError), first.transaction():
        pass
    with second.transaction() as connection:
        tables.set_meta(connection, {"status": "running"})
    for one in (first, second):
        one.close()


@pytest.mark.parametrize("act", [lambda folder: Run(folder).meta(), lambda folder: Database(folder / "run.db")])
def test_newer_format_is_refused_clearly(old: Path, act: Callable[[Path], Any]) -> None:
    with contextlib.closing(sqlite3.connect(old / "run.db")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = (old / "run.db").read_bytes()
    with pytest.raises(UsageError, match=rf"has format {FORMAT + 1}, and this version of alcore reads up to {FORMAT}"):
        act(old)
    assert (old / "run.db").read_bytes() == before
