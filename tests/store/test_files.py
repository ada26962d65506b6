"""A file is there in whole or as it was; a run directory lies in its root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from alcore.errors import UsageError
from alcore.store.database import Database
from alcore.store.files import appearing_run, fsync_path, remove_unfinished, run_directory, write_whole

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found.append("fsync folder" if path.is_dir() else f"fsync {path.read_text()}")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        found.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    return found


def test_a_durable_file_is_flushed_before_it_is_named(tmp_path: Path, events: list[str]) -> None:
    write_whole(tmp_path / "a.txt", "text", durable=True)
    assert events == ["fsync text", "replace", "fsync folder"]


def test_other_files_are_not_flushed(tmp_path: Path, events: list[str]) -> None:
    write_whole(tmp_path / "a.txt", "text", durable=False)
    assert events == ["replace"]


@pytest.mark.parametrize("durable", [False, True])
def test_an_older_file_is_replaced(tmp_path: Path, durable: bool) -> None:
    for text in ("a long first text", "é"):
        write_whole(tmp_path / "a.txt", text, durable=durable)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("place", [(os, "fsync"), (os, "fchmod"), (Path, "replace")], ids=lambda place: place[1])
def test_after_an_error_the_old_file_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[object, str]
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    write_whole(tmp_path / "a.txt", "old", durable=True)
    monkeypatch.setattr(*place, fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", "new", durable=True)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_fsync_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    fsync_path(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_path(tmp_path / "gone")
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_run_directory_lies_in_its_root(tmp_path: Path) -> None:
    assert run_directory(tmp_path, "a1") == tmp_path / "a1"


@pytest.mark.parametrize("name", ["../out", "a/b", "/etc", "..", ".", "", ".hidden", "a\n"])
def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        run_directory(tmp_path, name)


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_symbolic_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="symbolic link"):
        run_directory(tmp_path, "run")


# -- what processes that were killed leave behind -------------------------------------------------------


def half_a_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ckpt").mkdir()
    (folder / "ckpt" / ".initial.0a1b2c3d.part").write_bytes(b"half")
    for name in ("lock", "experiment.toml", ".experiment.toml.ab_cd123.alcore-part", "f1.json"):
        (folder / name).write_text("x")
    Database(folder / "run.db").close()
    return folder


def test_what_was_left_of_text_files_is_removed(tmp_path: Path) -> None:
    mine = [".driver_log.json", "driver_log.json", ".driver_log.json.swp", "notes.json.abcdefgh", ".f1.json.ABCDEFGH",
            ".experiment.toml.20261125", ".notes.json.original"]  # fmt: skip
    for name in [*mine, ".driver_log.json.abc_1234.alcore-part", ".experiment.toml.xyz_9999.alcore-part"]:
        (tmp_path / name).write_text("x")
    (tmp_path / ".folder.json.abcdefgh.alcore-part").mkdir()
    remove_unfinished(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {*mine, ".folder.json.abcdefgh.alcore-part"}


def test_a_folder_of_runs_that_is_locked_by_who_began_this_process(tmp_path: Path) -> None:
    """As ``flock active_learning_logs alcore run`` does."""
    script = "import sys; from pathlib import Path; from alcore.store.files import appearing_run\n"
    script += "with appearing_run(Path(sys.argv[1]), 'r1'): pass"
    held = os.open(tmp_path, os.O_RDONLY)
    own = os.open(tmp_path / ".alcore.lock", os.O_RDWR | os.O_CREAT)
    try:
        for descriptor in (held, own):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    finally:
        os.close(held)
        os.close(own)
    assert (tmp_path / "r1").is_dir()


def test_what_a_user_calls_nearly_so_stays(tmp_path: Path) -> None:
    half_a_run(tmp_path / ".backup.20261125")
    half_a_run(tmp_path / ".alcore-building.r1.20261125")
    with contextlib.closing(sqlite3.connect(tmp_path / ".alcore-building.r1.20261125" / "run.db")) as connection:
        connection.execute("INSERT INTO steps VALUES (0, '{}', '{}')")
        connection.commit()
    half_a_run(tmp_path / ".alcore-building.r2.20261125")
    (tmp_path / ".alcore-building.r2.20261125" / "run.db").write_text("what no program can read")
    before = set(tmp_path.iterdir())
    with appearing_run(tmp_path, "r3"):
        assert before <= set(tmp_path.iterdir())


def test_half_a_run_is_removed_when_the_next_is_begun(tmp_path: Path) -> None:
    half_a_run(tmp_path / ".alcore-building.r1.0123abcd")
    half_a_run(tmp_path / ".alcore-building.my.run-2.0123abcd")
    building = ".alcore-building"
    mine = [tmp_path / name for name in (f"{building}.r1.0123ABCD", f"{building}.cache.0123abcd", "r1.0123abcd")]
    for folder in mine:
        half_a_run(folder)
    (tmp_path / f"{building}.cache.0123abcd" / "page").write_text("of mine")
    (tmp_path / f"{building}.linked.0123abcd").symlink_to(half_a_run(tmp_path / "elsewhere"))
    with appearing_run(tmp_path, "r2") as hidden:
        left = {one.name for one in tmp_path.iterdir()} - {hidden.name}
    assert left == {*(one.name for one in mine), f"{building}.linked.0123abcd", "elsewhere", ".alcore.lock"}
    assert (tmp_path / "r2").is_dir()


def test_a_run_that_is_being_built_is_left_alone(tmp_path: Path) -> None:
    """By this process and by others; and it is left by one that is killed."""
    script = "import sys; from pathlib import Path; from alcore.store.files import appearing_run\n"
    script += "with appearing_run(Path(sys.argv[1]), 'other'): print('begun', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with appearing_run(tmp_path, "r1"), appearing_run(tmp_path, "r2"):
            assert len(list(tmp_path.glob(".alcore-building.*"))) == 3
        assert len(list(tmp_path.glob(".alcore-building.other.*"))) == 1
        other.kill()
    assert len(list(tmp_path.glob(".alcore-building.other.*"))) == 1
    with appearing_run(tmp_path, "r3"):
        assert list(tmp_path.glob(".alcore-building.other.*")) == []
    assert {one.name for one in tmp_path.iterdir()} == {"r1", "r2", "r3", ".alcore.lock"}


def test_no_lock_is_left_on_the_folder_of_runs(tmp_path: Path) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    with appearing_run(tmp_path, "r1"):
        pass
    with pytest.raises(ZeroDivisionError), appearing_run(tmp_path, "r2"):
        raise ZeroDivisionError
    assert len(list(DESCRIPTORS.iterdir())) == before
    shutil.rmtree(tmp_path / "r1")
