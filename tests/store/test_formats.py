"""A run directory of another format is refused, whoever opens it, and stays as it is."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcore.errors import UsageError
from alcore.store.database import Database
from alcore.store.fork import fork_run
from alcore.store.formats import FORMAT
from alcore.store.reading import Run, summaries
from alcore.store.run import RunStore

GOLDEN = Path(__file__).parent / "golden" / f"format-{FORMAT}"
ACTS: dict[str, Callable[[Path], Any]] = {
    "read": lambda folder: Run(folder).meta(),
    "verify": lambda folder: Run(folder).verify(),
    "fork": lambda folder: fork_run(Run(folder), 0, run_id="forked"),
    "open": lambda folder: RunStore.open(folder.parent, folder.name),
    "open the database": lambda folder: Database(folder / "run.db"),
}
NEWER = rf"run\.db has format {FORMAT + 1}, and this version of alcore reads format {FORMAT} alone; upgrade alcore\."
OLDER = (
    rf"run\.db has format %d, which was written before alcore 0\.1\.0, and this version of alcore reads format "
    rf"{FORMAT} alone; read it with the version that wrote it\."
)


def of_format(folder: Path, version: int) -> Path:
    """Return a copy of the run of this format that says it has another one."""
    copy = Path(shutil.copytree(GOLDEN, folder / "golden"))
    with contextlib.closing(sqlite3.connect(copy / "run.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    return copy


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("version", "message"), [(FORMAT + 1, NEWER), *((older, OLDER % older) for older in range(1, FORMAT))]
)
def test_other_format_is_refused_and_stays(tmp_path: Path, act: str, version: int, message: str) -> None:
    folder = of_format(tmp_path, version)
    before = files(folder)
    with pytest.raises(UsageError, match=message):
        ACTS[act](folder)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["golden"]


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_other_format_is_a_row_of_the_list_of_runs(tmp_path: Path, version: int) -> None:
    of_format(tmp_path, version)
    (summary,) = summaries(tmp_path)
    assert summary.status == "unreadable"


def test_this_format_is_read(tmp_path: Path) -> None:
    assert Run(of_format(tmp_path, FORMAT)).meta()["run_id"] == Run(GOLDEN).meta()["run_id"]
