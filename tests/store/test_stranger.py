"""A run directory from a stranger is read, exported, forked and gone on with, and nothing else is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alcore_predict import export_run
from helpers.tampering import forged

from alcore import Driver
from alcore.errors import AlcoreError
from alcore.store.fork import fork_run
from alcore.store.inbox import Inbox
from alcore.store.lock import is_locked
from alcore.store.reading import Run, find_run, summaries

Build = Callable[..., Driver]
Attack = Callable[[Path, Path], None]


def _link(name: str, victim: str) -> Attack:
    def attack(run: Path, home: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(home / victim)

    return attack


def _pipe(name: str) -> Attack:
    def attack(run: Path, home: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return attack


def _sql(statement: str) -> Attack:
    def attack(run: Path, home: Path) -> None:
        with forged(run) as connection:
            connection.execute(statement.format(home=home, up=os.path.relpath(home, run)))

    return attack


def _journal(run: Path, home: Path) -> None:
    """Leave a journal that SQLite rolls back, and that names a file to be deleted after that."""
    path = run / "run.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE big AS SELECT zeroblob(200000)")
        database, journal = path.read_bytes(), path.with_name("run.db-journal").read_bytes()
        connection.execute("ROLLBACK")
    path.write_bytes(database)
    name = str(home / "weights.safetensors").encode()
    end = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name))
    path.with_name("run.db-journal").write_bytes(journal + end + bytes.fromhex("d9d505f920a163d7"))


STRATEGIES = [
    f"UPDATE records SET strategy = '{name}'"
    for name in ("{home}/figures", "{up}/figures", "driver_log", "a/../{up}/figures", "a\nb", "." * 9)
]
CHECKPOINTS = [
    "UPDATE checkpoints SET file = '{up}/weights.safetensors' WHERE phase <> 'start' AND step = 0",
    "UPDATE checkpoints SET file = '{home}/weights.safetensors' WHERE phase <> 'start' AND step = 0",
    "UPDATE checkpoints SET file = '../ckpt/../{up}/weights.safetensors' WHERE phase = 'start'",
    "UPDATE checkpoints SET file = '/weights.safetensors' || char(0) WHERE step = 1",
]
LINKS = {
    "run.db": "other.db", "run.db-journal": "notes.txt", "run.db-wal": "notes.txt", "lock": "notes.txt",
    "console.log": "notes.txt", "experiment.toml": "notes.txt", "driver_log.json": "figures.json",
    "count_metrology.json": "figures.json", "ckpt": "folder", "inbox": "folder", "labels": "folder",
    "strategies": "folder", "inbox/refused": "folder", "strategies/first_query": "folder",
    "ckpt/initial.safetensors": "weights.safetensors", "anything/deep": "folder",
}  # fmt: skip
ATTACKS: dict[str, Attack] = {
    **{f"link {name}": _link(name, victim) for name, victim in LINKS.items()},
    **{f"pipe {name}": _pipe(name) for name in ("lock", "console.log", "experiment.toml", "driver_log.json")},
    **{statement: _sql(statement) for statement in STRATEGIES + CHECKPOINTS},
    "journal": _journal,
}


def _state(folder: Path) -> dict[str, Any]:
    """Return every file below a folder, with its content and the time of its last change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Where a run is kept that the first test makes."""
    return []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ATTACKS)
def test_run_from_a_stranger_touches_nothing_else(
    build: Build, finished: list[Path], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, name: str
) -> None:
    if not finished:
        kept = tmp_path_factory.mktemp("kept")
        build(run_id="r", max_active_learning_steps=2, root_log_dir=kept).run()
        finished.append(kept)
    home, root = tmp_path / "home", tmp_path / "root"
    (home / "folder").mkdir(parents=True)
    for file in ("notes.txt", "figures.json", "weights.safetensors", "folder/mine.safetensors", "folder/.driver.part"):
        (home / file).write_text("what is mine")
    shutil.copyfile(finished[0] / "r" / "run.db", home / "other.db")
    shutil.copytree(finished[0], root)
    ATTACKS[name](root / "r", home)
    before = _state(home)

    def resume() -> None:
        driver = build(run_id="r", max_active_learning_steps=4, root_log_dir=root, keep="last=1")
        driver.restore()
        driver.run()

    def read() -> None:
        run = find_run(root, "r")
        run.meta(), run.steps(), run.requests(), run.records(), run.checkpoints(), run.refused()

    acts: dict[str, Callable[[], Any]] = {
        "list": lambda: list(summaries(root)),
        "read": read,
        "is locked": lambda: is_locked(root / "r"),
        "export": lambda: export_run(Run(root / "r"), root / "export"),
        "fork": lambda: fork_run(Run(root / "r"), 1, run_id="forked"),
        "publish": lambda: Inbox(root / "r" / "inbox").publish([1]),
        "resume": resume,
    }
    refused = []
    for act, do in acts.items():
        try:
            do()
        except AlcoreError:
            refused.append(act)
        assert _state(home) == before, act
    assert "resume" in refused
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "root", "runs"}


def test_links_that_programs_of_the_user_leave_where_they_work_are_let_be(build: Build, tmp_path: Path) -> None:
    build(run_id="r", max_active_learning_steps=1).run()
    work = tmp_path / "runs" / "r" / "strategies" / "mine" / "work" / "1"
    work.mkdir(parents=True)
    (work / "mesh").symlink_to("/etc")
    build(run_id="r", max_active_learning_steps=2).restore()
    shutil.rmtree(work.parent)
    work.parent.symlink_to("/etc")
    with pytest.raises(AlcoreError, match="work is a symbolic link"):
        build(run_id="r", max_active_learning_steps=2).restore()


def test_run_with_links_that_stay_inside_goes_on(build: Build, tmp_path: Path) -> None:
    """What a user's observer may leave, such as a link to the latest of its files."""
    build(run_id="r", max_active_learning_steps=1).run()
    folder = tmp_path / "runs" / "r" / "strategies" / "mine"
    folder.mkdir(parents=True)
    (folder / "first").write_text("of mine")
    (folder / "latest").symlink_to("first")
    driver = build(run_id="r", max_active_learning_steps=2)
    driver.restore()
    driver.run()
    assert len(Run(driver.log_dir).steps()) == 2
