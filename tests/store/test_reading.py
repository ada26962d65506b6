"""Runs are found and read while they are written, after they were killed, and when they are damaged."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alcore.errors import RunLockedError, UsageError
from alcore.store import reader
from alcore.store.database import Database
from alcore.store.formats import FORMAT
from alcore.store.lock import RunLock, held_error
from alcore.store.reader import Reader
from alcore.store.reading import Run, figures, find_run, parts_of, run_folders, runs_within, settings_of, summaries
from alcore.store.rows import Record
from alcore.store.run import RunStore
from alcore.store.steps import Steps

Create = Callable[..., RunStore]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def create(root: Path) -> Iterator[Create]:
    stores: list[RunStore] = []

    def make(run_id: str, **meta: Any) -> RunStore:
        given = {"status": "running", "started": "2026-01-01", **meta}
        stores.append(RunStore.create(root, run_id, meta=given, experiment="", state={}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def change(store: RunStore, statement: str) -> None:
    store.close()
    connection = sqlite3.connect(store.folder / "run.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


# -- finding ---------------------------------------------------------------------------------------------


def test_run_is_found_by_id_start_of_id_or_folder(create: Create, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("abc", "abcd", "xyz"):
        create(name)
    assert find_run(root, "abc").folder == root / "abc"
    assert find_run(root, "abcd").folder == root / "abcd"
    assert find_run(root, "x").folder == root / "xyz"
    assert find_run(root, str(root / "xyz")).folder == root / "xyz"
    monkeypatch.chdir(root / "xyz")
    for here in ("./", ".", "../xyz", f"{root}/xyz/."):
        assert find_run(root, here).folder.name == "xyz"
    monkeypatch.chdir(root / "xyz" / "ckpt")
    assert find_run(root, "..").folder.name == "xyz"


def test_run_is_found_by_its_folder_from_where_it_lies(
    create: Create, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("abc")
    monkeypatch.chdir(root)
    assert find_run(Path("active_learning_logs"), "abc").summary().run_id == "abc"


def test_start_of_two_run_ids_names_both(create: Create, root: Path) -> None:
    create("abc")
    create("abd")
    with pytest.raises(UsageError, match=r"'ab' is the start of 2 runs in .*: abc, abd"):
        find_run(root, "ab")


def test_mistyped_run_names_the_nearest(create: Create, root: Path) -> None:
    create("moons-1")
    create("digits")
    with pytest.raises(UsageError, match=r"no run 'mons-1' in .*did you mean 'moons-1'.*digits.*`alcore runs`"):
        find_run(root, "mons-1")


def test_root_without_runs_has_none_to_find(root: Path) -> None:
    assert run_folders(root) == []
    assert list(summaries(root)) == []
    with pytest.raises(UsageError, match=r"no run 'a'.*there are none"):
        find_run(root, "a")


def test_folder_without_a_database_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no run\.db"):
        Run(tmp_path)
    with pytest.raises(UsageError, match=r"it has no run\.db"):
        find_run(tmp_path, f"{tmp_path}/gone")


def test_hidden_and_other_folders_are_not_runs(create: Create, root: Path) -> None:
    store = create("b")
    create("a")
    (root / "empty").mkdir()
    (root / "file").write_text("")
    (root / ".c.1234").mkdir()
    (root / ".c.1234" / "run.db").write_bytes((store.folder / "run.db").read_bytes())
    assert [folder.name for folder in run_folders(root)] == ["a", "b"]


def test_runs_in_folders_of_a_root_are_listed_by_their_names_and_found(create: Create, root: Path) -> None:
    create("own", started="2026-01-02").close()
    create("uq-0", started="2026-01-01").close()
    for inside in ("bench", ".hidden", "own/deeper"):
        (root / inside).mkdir()
    shutil.copytree(root / "uq-0", root / ".hidden" / "uq-1")
    shutil.copytree(root / "uq-0", root / "own" / "deeper" / "uq-2")
    (root / "uq-0").rename(root / "bench" / "uq-0")
    (root / "link").symlink_to(root / "bench")
    assert runs_within(root) == {"own": root / "own", "bench/uq-0": root / "bench" / "uq-0"}
    assert [summary.run_id for summary in summaries(root)] == ["bench/uq-0", "own"]
    assert find_run(root, "bench/uq-0").folder == root / "bench" / "uq-0"
    assert runs_within(root / "none") == {}


# -- reading ---------------------------------------------------------------------------------------------


def test_run_is_read_while_it_is_written(create: Create) -> None:
    store = create("r")
    reader = Run(store.folder)
    assert reader.meta()["status"] == "running"
    with store._database.transaction() as connection:
        connection.execute("INSERT INTO run VALUES ('new', '1', '')")
        assert "new" not in reader.meta()
    assert reader.meta()["new"] == 1


def test_run_whose_writer_is_gone_has_stopped(create: Create) -> None:
    store = create("r")
    store.close()
    assert Run(store.folder).meta()["status"] == "stopped"
    with_lock = RunLock(store.folder)
    assert Run(store.folder).meta()["status"] == "running"
    with_lock.release()


def test_finished_run_keeps_its_status(create: Create) -> None:
    store = create("r", status="done")
    store.close()
    assert Run(store.folder).meta()["status"] == "done"


def test_reading_changes_nothing(create: Create) -> None:
    store = create("r")
    store.close()
    before = {path.name: path.read_bytes() for path in store.folder.iterdir() if path.is_file()}
    reader = Run(store.folder)
    reader.summary(), reader.requests(), reader.refused(), reader.checkpoints(), reader.steps(), reader.records()
    with pytest.raises(UsageError, match="can't be read"):
        reader.read("INSERT INTO run VALUES ('a', '1', '')")
    with pytest.raises(UsageError, match="only the writer"):
        Steps(Reader(store.folder)).insert(0, {}, {})
    assert {path.name: path.read_bytes() for path in store.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("written", [True, False])
def test_run_that_is_kept_locked_names_its_writer(
    create: Create, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    store = create("r")
    if not written:
        store.close()
    monkeypatch.setattr(reader, "_TIMEOUT", 0.01)
    holder = sqlite3.connect(store.folder / "run.db", isolation_level=None)  # as a writer stopped inside a transaction
    holder.execute("BEGIN EXCLUSIVE")
    try:
        expected = f"process {os.getpid()} on .*; wait for it to end, or stop it" if written else "database is locked"
        with pytest.raises(RunLockedError if written else UsageError, match=expected):
            Run(store.folder).summary()
    finally:
        holder.close()


def test_summary_counts_and_shows_the_last_figures(create: Create) -> None:
    store = create("r", reason="done so")
    store.commit_step(0, {"step": 0}, {}, [Record(0, "f1", 0, {"f1": 0.25, "step": 0})], None)
    store.commit_step(1, {"step": 1}, {}, [Record(1, "f1", 0, {"f1": 0.75, "step": 1, "on": "pool"})], None)
    stored = Run(store.folder).summary()
    assert stored == ("r", "running", "done so", "2026-01-01", 2, 0, {"f1": 0.75}, "pool")


def test_figures_are_the_fractions_of_a_record() -> None:
    assert figures({"f1": 0.5, "step": 3, "on": "train"}) == {"f1": 0.5}
    assert figures(0.5) == figures(None) == {}


def test_transaction_of_a_killed_writer_is_rolled_back(tmp_path: Path) -> None:
    """SIGKILL while a transaction spills to the file leaves a hot journal."""
    database = Database(tmp_path / "run.db")
    with database.transaction() as connection:
        connection.execute("INSERT INTO run VALUES ('whole', '1', '')")
    database.close()
    program = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE');"
        "c.executemany('INSERT INTO run VALUES (?, ?, 0)', [(f'k{i}', '9' * 3000) for i in range(200)]);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run.db")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "run.db-journal").stat().st_size > 0
    assert Run(tmp_path).meta() == {"whole": 1}


# -- damage ----------------------------------------------------------------------------------------------


def test_run_that_cannot_be_read_is_listed_as_unreadable(create: Create, root: Path) -> None:
    create("fine", started="2026-01-02")
    change(create("newer"), f"PRAGMA user_version = {FORMAT + 1}")
    change(create("tableless"), "DROP TABLE steps")
    change(create("nojson"), "UPDATE run SET value = '{' WHERE key = 'started'")
    change(create("unknown"), """UPDATE run SET value = '{"$later": 1}' WHERE key = 'started'""")
    for name, content in (("garbage", b"no database " * 99), ("empty", b"")):
        store = create(name)
        store.close()
        (store.folder / "run.db").write_bytes(content)
    summaries_by_id = {summary.run_id: summary for summary in summaries(root)}
    assert summaries_by_id.pop("fine").status == "running"
    assert {summary.status for summary in summaries_by_id.values()} == {"unreadable"}
    assert sorted(summaries_by_id) == ["empty", "garbage", "newer", "nojson", "tableless", "unknown"]
    assert "upgrade alcore" in str(summaries_by_id["newer"].reason)
    assert "is not a run database" in str(summaries_by_id["garbage"].reason)
    assert "no such table: steps" in str(summaries_by_id["tableless"].reason)
    assert all(summary.reason for summary in summaries_by_id.values())


def test_runs_are_listed_oldest_first(create: Create, root: Path) -> None:
    for name, started in (("a", "2026-01-03"), ("b", "2026-01-01"), ("d", "2026-01-02"), ("c", "2026-01-02")):
        create(name, started=started)
    assert [summary.run_id for summary in summaries(root)] == ["b", "c", "d", "a"]


def test_reading_leaves_no_descriptor_open(create: Create) -> None:
    store = create("r")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        Run(store.folder).summary()
        with pytest.raises(UsageError):
            Run(store.folder).read("SELECT * FROM gone")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- what is under way, settings, log --------------------------------------------------------------------


def test_position_is_known_while_a_process_writes(create: Create) -> None:
    store = create("abc")
    run = Run(store.folder)
    assert run.position() is None
    store.note_position(3, "training", 12)
    assert run.position() == (3, "training", 12)
    store.note_position(10**15, "labeling")
    assert run.position() == (10**15, "labeling", 0)
    assert str(held_error(store.folder)).startswith(f"run abc is being written by process {os.getpid()} on ")
    assert str(held_error(store.folder)).endswith("; wait for it to end, or stop it.")
    store.close()
    store.note_position(4, "query")
    assert run.position() is None


def test_position_of_a_foreign_lock_file_is_unknown(create: Create) -> None:
    store = create("abc")
    for text in ("", "one line", "holder\nstep <b> training epoch 0\n", "holder\n\xff"):
        (store.folder / "lock").write_bytes(text.encode("latin-1"))
        assert Run(store.folder).position() is None


def test_log_gives_its_last_whole_lines(create: Create) -> None:
    run = Run(create("abc").folder)
    assert run.log(5) == []
    (run.folder / "console.log").write_text("".join(f"line {i}\n" for i in range(20_000)))
    assert run.log(2) == ["line 19998", "line 19999"]
    whole = run.log(10**6)
    assert whole[0] == f"line {20_000 - len(whole)}"
    (run.folder / "console.log").unlink()
    (run.folder / "console.log").symlink_to("/etc/hostname")
    assert run.log(2) == []


@pytest.mark.parametrize("text", ["not toml", "a = " + "[" * 5000, "seed = 1"])
def test_parts_of_a_damaged_experiment_are_empty(create: Create, text: str) -> None:
    folder = create("abc").folder
    (folder / "experiment.toml").write_text(text)
    assert set(parts_of(settings_of(folder)).values()) == {""}
    assert settings_of(folder) == ({"seed": 1} if text == "seed = 1" else {})
