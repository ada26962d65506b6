from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest

Rows = list[list[str]]


@pytest.fixture
def rows() -> Rows:
    """A header and 40 rows: a number, a category, and two classes."""
    rng = random.Random(0)
    body = [[f"{rng.gauss(40, 9):.3f}", rng.choice(["red", "green", "blue"]), ("no", "yes")[i % 2]] for i in range(40)]
    return [["size", "colour", "bought"], *body]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as CSV and return the path."""

    def write_rows(rows: Rows, name: str = "t.csv", delimiter: str = ",") -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter=delimiter).writerows(rows)
        return path

    return write_rows
