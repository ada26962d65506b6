"""A CSV file has each step once, with what was measured, whatever happens to the run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from alcore_csvlog import CsvTracker
from alcore_testing import ObserverContract, run_command

from alcore.store import find_run


class TestCsvTracker(ObserverContract):
    name = "csv"

    def make(self, **parameters: Any) -> CsvTracker:
        return CsvTracker(**parameters)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the directory of a run of four steps."""
    assert run_command(tmp_path, "run", "--observe", "csv", "--steps", "4", "--run-id", "mine", "--quiet").code == 0
    return tmp_path / "active_learning_logs" / "mine"


def test_rows_are_the_records(run: Path) -> None:
    rows = rows_of(run / "metrics.csv")
    records = find_run(run.parent, "mine").records()["f1_metrology"]
    assert [float(row["f1_metrology.f1"]) for row in rows] == [record["f1"] for record in records]
    assert [int(row["labels"]) for row in rows] == [50, 60, 70, 80, 90]
    assert [float(row["cost"]) for row in rows] == [0, 10, 20, 30, 40]
    assert [row["labeled"] for row in rows] == ["10"] * 4 + [""]


def test_extended_run_has_the_file_of_an_uninterrupted_one(run: Path) -> None:
    path = run / "metrics.csv"
    path.write_text(path.read_text() + "4,9", encoding="utf-8")  # half a line, of a process that was killed
    assert run_command(run.parents[1], "resume", "mine", "--steps", "7", "--quiet").code == 0
    words = ("run", "--observe", "csv", "--steps", "7")
    assert run_command(run.parents[1], *words, "--run-id", "whole", "--quiet").code == 0
    assert path.read_bytes() == (run.parent / "whole" / "metrics.csv").read_bytes()
    assert [row["step"] for row in rows_of(path)] == [str(step) for step in range(8)]


def test_path_has_the_run_in_it(tmp_path: Path) -> None:
    words = ["--observe", "csv", "--set", "observe.csv.path=all/{run}.csv", "--steps", "1", "--run-id", "mine"]
    assert run_command(tmp_path, "run", *words, "--quiet").code == 0
    assert len(rows_of(tmp_path / "all" / "mine.csv")) == 2


def test_file_of_somebody_else_is_left_alone_and_told_once(run: Path) -> None:
    path = run / "metrics.csv"
    path.write_text("mine,not yours\n1,2\n", encoding="utf-8")
    assert run_command(run.parents[1], "resume", "mine", "--steps", "7", "--quiet").code == 0
    assert path.read_text(encoding="utf-8") == "mine,not yours\n1,2\n"
    log = (run / "console.log").read_text(encoding="utf-8")
    assert log.count("was not written by this tracker") == 1


def test_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    result = run_command(
        tmp_path, "run", "--observe", "csv", "--steps", "1", "--quiet", "--set", f"observe.csv.path={path}"
    )
    assert result.code == 0
    assert path.read_text(encoding="utf-8") == "a,b\n1,2\n"
    assert "was not written by this tracker" in result.err
