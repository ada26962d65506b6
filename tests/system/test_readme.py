"""The README's commands for one's own data, as a newcomer would copy them."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.system
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with wine.csv, and new.csv without the target."""
    draws = np.random.default_rng(0)
    for name, rows in (("wine.csv", 240), ("new.csv", 12)):
        acid, sugar = draws.normal(size=(2, rows))
        color = draws.choice(["red", "white"], rows)
        quality = np.where(acid + np.where(color == "red", 1, -1) + 0.3 * draws.normal(size=rows) > 0, "good", "poor")
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            header = ["acid", "sugar", "color", "quality"]
            lines = zip(acid.round(3), sugar.round(3), color, quality, strict=True)
            writer.writerows(line if name == "wine.csv" else line[:-1] for line in [header, *map(list, lines)])
    return tmp_path


def commands() -> list[str]:
    """Return the commands of the README's first block on one's own data."""
    section = README.read_text(encoding="utf-8").partition("## Your own data")[2]
    block = re.search(r"```\n(.*?)```", section, re.S)
    assert block is not None
    return [line.partition("  #")[0].strip() for line in block[1].splitlines()]


def test_install_is_refused_where_no_environment_is_active(tmp_path: Path) -> None:
    environment = {"PATH": f"{sys.base_prefix}/bin:{os.defpath}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["make", "-C", README.parent, "install"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "No Python environment is active" in done.stdout
    assert "activate && make install" in done.stdout


def test_commands_lead_from_a_table_to_predictions(run_alcore, folder: Path) -> None:
    said = {}
    for line in commands():
        program, name, *words = shlex.split(line.replace("--seeds 10", "--seeds 1 --steps 3"))
        words += ["--steps", "8"] if name == "run" else []
        assert program == "alcore"
        result = run_alcore(name, *words, cwd=folder)
        assert result.code == 0, result.err
        said[name] = result.out
    assert "uq" in said["benchmark"]
    page = (folder / "first-report.html").read_text(encoding="utf-8")
    reader = HTMLParser()
    reader.feed(page)
    assert "<svg" in page
    with (folder / "predicted.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "new.csv").open(newline="", encoding="utf-8") as file:
        new = list(csv.DictReader(file))
    assert len(rows) == 12
    predicted = [next(value for value in row.values() if value in ("good", "poor")) for row in rows]
    expected = ["good" if float(row["acid"]) + (1 if row["color"] == "red" else -1) > 0 else "poor" for row in new]
    assert sum(a == b for a, b in zip(predicted, expected, strict=True)) >= 9
