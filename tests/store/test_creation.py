"""Hidden folders of runs whose creation was killed are found and removed; nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alcore.store.creation import appearing_run, remove_unfinished_runs, unfinished_runs
from alcore.store.lock import RunLock
from alcore.store.run import RunStore


def hidden(root: Path, name: str, *, locked: bool = True) -> Path:
    """Make what a killed creation leaves."""
    folder = root / name
    (folder / "ckpt").mkdir(parents=True)
    (folder / "ckpt" / ".initial.0a1b2c3d.part").write_bytes(b"half")
    if locked:
        (folder / "lock").write_text("process 7 on here")
    return folder


def test_root_that_does_not_exist_has_no_unfinished_runs(tmp_path: Path) -> None:
    assert unfinished_runs(tmp_path / "missing") == []


def test_unfinished_runs_are_removed(tmp_path: Path) -> None:
    folders = [hidden(tmp_path, f".alcore-building.{name}.0123abcd") for name in ("my.run-2", "r1")]
    assert unfinished_runs(tmp_path) == folders
    assert remove_unfinished_runs(tmp_path) == folders
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_another_name_or_kind_is_removed(tmp_path: Path) -> None:
    names = [".alcore-building.r1.0123ABCD", ".alcore-building.r1.0123abc", ".alcore-building..hidden.0123abcd",
             ".alcore-building.0123abcd", "r1.0123abcd", ".backup.0123abcd", "alcore-building.r1.0123abcd"]  # fmt: skip
    for name in names:
        hidden(tmp_path, name)
    elsewhere = hidden(tmp_path, "elsewhere")
    (tmp_path / ".alcore-building.linked.0123abcd").symlink_to(elsewhere)
    (tmp_path / ".alcore-building.file.0123abcd").write_text("mine")
    RunStore.create(tmp_path, "r1", meta={}, experiment="", state={}).close()
    before = sorted(tmp_path.rglob("*"))
    assert remove_unfinished_runs(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_run_that_is_being_built_is_not_unfinished(tmp_path: Path) -> None:
    """By this process, and by another one until it is killed."""
    script = "import sys; from pathlib import Path\n"
    script += "from alcore.store.creation import appearing_run; from alcore.store.lock import RunLock\n"
    script += "with appearing_run(Path(sys.argv[1]), 'other') as hidden:\n"
    script += "    lock = RunLock(hidden); print('begun', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        with appearing_run(tmp_path, "r1") as mine:
            lock = RunLock(mine)
            assert len(list(tmp_path.glob(".alcore-building.*"))) == 2
            assert unfinished_runs(tmp_path) == []
        lock.release()
        other.kill()
    assert [path.name.split(".")[2] for path in remove_unfinished_runs(tmp_path)] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]


def test_hidden_folder_without_a_lock_is_unfinished_after_a_minute(tmp_path: Path) -> None:
    folder = hidden(tmp_path, ".alcore-building.r1.0123abcd", locked=False)
    assert unfinished_runs(tmp_path) == []
    then = time.time() - 61
    os.utime(folder, (then, then))
    assert unfinished_runs(tmp_path) == [folder]


def test_creation_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with appearing_run(tmp_path, "r1"):
        pass
    with pytest.raises(ZeroDivisionError), appearing_run(tmp_path, "r2"):
        raise ZeroDivisionError
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [path.name for path in tmp_path.iterdir()] == ["r1"]
