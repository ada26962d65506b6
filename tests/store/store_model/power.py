"""How the life of a process that writes to a run ends: at any point, and with what it may leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alcore.store import checkpoints
from store_model.writer import state_of


class Killed(BaseException):
    """The process is gone."""


class PowerCut:
    """Ends a life at a point where what is on the disk changes, and keeps what is there at that moment.

    ``point`` is called at each of them: before a flush, a renaming, a removal, and before SQLite commits.
    """

    def __init__(self) -> None:
        self.patches = pytest.MonkeyPatch()
        self.left: int | None = None  # points until it happens
        self.on = self.disk_is_full = False
        self.commits = 0  # since the block of `over` began
        self.folder: Path | None = None
        self.kept: Path | None = None
        cut = self

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
                if statement == "COMMIT":
                    if cut.disk_is_full:
                        raise sqlite3.OperationalError("database or disk is full")
                    cut.point(committing=True)
                return super().execute(statement.replace("= EXTRA", "= OFF"), *parameters)

        connect = sqlite3.connect
        self.patches.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Connection, **options))
        self.patches.setattr(os, "fsync", lambda descriptor: self.point())  # no machine crashes here
        for name in ("rename", "replace", "unlink"):
            self.patches.setattr(Path, name, self._before(getattr(Path, name)))

    @contextlib.contextmanager
    def over(self, folder: Path, kept: Path) -> Iterator[None]:
        """Let it happen to what the block does; afterwards ``kept`` is there if it happened."""
        self.folder, self.kept, self.on, self.commits = folder, kept, True, 0
        try:
            yield
        except Killed:
            pass
        finally:
            self.on = False

    def point(self, *, committing: bool = False) -> None:
        if not self.on or self.left is None:
            return
        if self.left == 0:
            self.on, self.left = False, None
            assert self.folder is not None
            assert self.kept is not None
            shutil.copytree(self.folder, self.kept)
            raise Killed
        self.left -= 1
        self.commits += committing

    def _before(self, act: Any) -> Any:
        def patched(*args: Any, **options: Any) -> Any:
            self.point()
            return act(*args, **options)

        return patched


LEFTOVERS = ("published", "half written", "hot journal")


def leave_behind(folder: Path, what: str) -> None:
    """Leave in a run directory what a process that was killed may leave there, and a file of the user's."""
    ckpt = folder / "ckpt"
    (ckpt / "mine.safetensors").write_text("weights of mine")
    if what == "published":
        checkpoints.publish(ckpt, "000077-labeling-000000", state_of(77, "labeling", 0))
        checkpoints.publish(ckpt, "000078-training-000002", state_of(78, "training", 2))
    elif what == "half written":
        (ckpt / ".000077-training-000001.0a1b2c3d.part").write_bytes(b"\0" * 9)
        (ckpt / ".tmpq1w2e3").write_bytes(b"")
        (folder / ".driver_log.json.part").write_bytes(b"{")
        (folder / "inbox" / f".{9:020d}-0a1b2c3d.json.part").write_bytes(b"{")
    else:
        _leave_hot_journal(folder / "run.db")


def _leave_hot_journal(path: Path) -> None:
    """Put half of a big transaction on the disk, with the journal that undoes it."""
    journal = path.with_name("run.db-journal")
    before = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE requests SET state = 'failed', attempt = 9, closed = 0, taken = 1")
        for table in ("labels", "refused", "records", "steps", "queries", "checkpoints"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE writer SET value = '0'")
        connection.execute("INSERT INTO run VALUES ('big', ?, '')", ("x" * 200_000,))
        contents = path.read_bytes(), journal.read_bytes()
        connection.execute("ROLLBACK")
    path.write_bytes(contents[0])
    journal.write_bytes(contents[1])
    assert contents[0] != before
    assert any(contents[1][:8]), "a journal whose header is zero is not hot"
