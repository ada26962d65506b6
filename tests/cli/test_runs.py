"""``alcore runs``: what killed processes left is counted, and removed when asked."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path

import pytest


@pytest.fixture
def leftover(tmp_path: Path) -> Path:
    """The hidden folder of a run whose process was killed an hour ago while it made the run."""
    folder = tmp_path / "active_learning_logs" / ".alcore-building.cut.0123abcd"
    (folder / "ckpt").mkdir(parents=True)
    os.utime(folder, (time.time() - 3600,) * 2)
    return folder


def test_unfinished_runs_are_counted(command, leftover: Path) -> None:
    out, err = command("runs")
    assert out.startswith("No runs in active_learning_logs.")
    assert err == (
        "alcore: active_learning_logs has 1 unfinished run of processes that were killed; "
        "alcore runs --clean removes them.\n"
    )
    assert json.loads(command("runs", "--json")[0]) == []
    assert leftover.is_dir()


def test_clean_removes_unfinished_runs_and_leaves_runs(command, leftover: Path, tmp_path: Path) -> None:
    command("run", "--run-id", "one", "--steps", "1", "-q")
    out, err = command("runs", "--clean")
    assert out.splitlines()[1].startswith("one ")
    assert err == "alcore: removed 1 unfinished run from active_learning_logs.\n"
    assert not leftover.exists()
    assert command("runs")[1] == ""


def test_suggested_command_cleans_the_folder_that_was_listed(command, leftover: Path, tmp_path: Path) -> None:
    elsewhere = leftover.parent.rename(tmp_path / "my runs")
    _, err = command("runs", "--root", "my runs")
    suggested = re.search(r"alcore (runs .*--clean)", err)
    assert suggested
    command(*shlex.split(suggested[1]))
    assert list(elsewhere.iterdir()) == []
