"""A file is replaced whole or stays as it was; a run directory lies in its root."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from alcore.errors import UsageError
from alcore.store.files import fsync_path, run_directory, write_whole

DESCRIPTORS = Path("/proc/self/fd")


def test_durable_file_is_flushed_before_it_has_its_name(tmp_path: Path, disk_events: list[Any]) -> None:
    write_whole(tmp_path / "a.txt", "text", durable=True)
    assert disk_events == [("fsync", b"text"), ("rename", "a.txt"), ("fsync folder", tmp_path.name)]


def test_file_that_is_not_durable_is_not_flushed(tmp_path: Path, disk_events: list[Any]) -> None:
    write_whole(tmp_path / "a.txt", "text", durable=False)
    assert disk_events == [("rename", "a.txt")]


@pytest.mark.parametrize("durable", [False, True])
def test_older_file_is_replaced(tmp_path: Path, durable: bool) -> None:
    for text in ("a long first text", "é"):
        write_whole(tmp_path / "a.txt", text, durable=durable)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("place", [(os, "fsync"), (os, "fchmod"), (Path, "replace")], ids=lambda place: place[1])
def test_error_leaves_the_older_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[object, str]
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    write_whole(tmp_path / "a.txt", "old", durable=True)
    monkeypatch.setattr(*place, fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", "new", durable=True)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_fsync_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(DESCRIPTORS.iterdir()))
    fsync_path(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_path(tmp_path / "gone")
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_run_directory_lies_in_its_root(tmp_path: Path) -> None:
    assert run_directory(tmp_path, "a1") == tmp_path / "a1"


@pytest.mark.parametrize("name", ["../out", "a/b", "/etc", "..", ".", "", ".hidden", "a\n"])
def test_run_id_that_leads_out_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        run_directory(tmp_path, name)


@pytest.mark.parametrize("name", ["l\N{LATIN SMALL LETTER A WITH DIAERESIS}ufe", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_refused_run_id_is_told_that_letters_are_ascii(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ASCII letters \(a to z, A to Z\), digits"):
        run_directory(tmp_path, name)


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_run_directory_that_is_a_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="symbolic link"):
        run_directory(tmp_path, "run")


def test_leftover_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".a.txt.part").symlink_to(tmp_path / "mine")
    write_whole(tmp_path / "a.txt", "text", durable=False)
    assert (tmp_path / "mine").read_text() == "mine"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "text", "mine": "mine"}


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a pipe"):
        write_whole(tmp_path / "pipe", "text", durable=False)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
