"""A folder appears whole or not at all; what killed processes left is removed, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from alcore.errors import UsageError
from alcore.store.files import StorageError
from alcore.store.folders import appearing_folder

KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
from alcore.store.folders import appearing_folder
with appearing_folder(Path(sys.argv[1])) as hidden:
    (hidden / "half").write_text("written")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("ready", flush=True)
    input()
"""


def test_folder_appears_whole_by_one_rename(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    with appearing_folder(target) as hidden:
        (hidden / "inner").mkdir()
        (hidden / "inner" / "file").write_text("content")
        assert not target.exists()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "new", "new/out", "new/out/inner", "new/out/inner/file",
    ]  # fmt: skip


def test_folder_that_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED_INSIDE, str(target), "kill"], check=False)
    (left,) = tmp_path.iterdir()  # the second one has removed what the first one left
    assert (left / "half").exists()
    others = [tmp_path / ".out.notmine.part", tmp_path / ".other.0123abcd.part"]
    for other in others:
        other.mkdir()
    (tmp_path / ".out.0123abcd.part").symlink_to(others[0])
    with appearing_folder(target):
        pass
    assert set(tmp_path.iterdir()) == {target, *others, tmp_path / ".out.0123abcd.part"}


def test_folder_that_another_process_is_making_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    command = [sys.executable, "-c", KILLED_INSIDE, str(target), "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"

        def make_it_too() -> None:
            with appearing_folder(target) as hidden:
                assert len(list(tmp_path.iterdir())) == 2
                other.communicate("\n")
                (hidden / "mine").write_text("late")

        with pytest.raises(UsageError, match="exists already"):
            make_it_too()
    assert [path.name for path in target.iterdir()] == ["half"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_folder_whose_block_fails_does_not_appear(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        with appearing_folder(tmp_path / "out") as hidden:
            (hidden / "half").write_text("written")
            raise error

    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["file", "folder", "link"])
def test_folder_whose_name_is_taken_is_refused(tmp_path: Path, taken: str) -> None:
    target = tmp_path / "out"
    {"file": target.touch, "folder": target.mkdir, "link": lambda: target.symlink_to("nowhere")}[taken]()
    with pytest.raises(UsageError, match="exists already"), appearing_folder(target):
        pass
    assert list(tmp_path.iterdir()) == [target]
