"""From a table to predictions with intervals, at the command line; a run that is cut off and resumed."""

import csv
import json
import random
import subprocess
import sys

import pytest
from alcore_testing import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    draw = random.Random(0)
    rows = [[draw.uniform(0, 10), draw.uniform(-1, 1)] for _ in range(80)]
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "y"])
        writer.writerows([a, b, 100 + a * a + 5 * b + draw.gauss(0, 1)] for a, b in rows)
    (folder / "new.csv").write_text("a,b\n2,0.5\n9,-0.5\n200,0\n")
    done = run(folder, "first")
    assert "uncertainty_metrology" in done.out, done.err
    return folder


def run(folder, name, steps="2"):
    return run_command(
        folder, "run", "--data", "data.csv", "--target", "y", "--learner", "gp", "--query", "alc",
        "--metrology", "uncertainty", "--metrology", "regression", "--steps", steps, "--run-id", name,
    )  # fmt: skip


def test_predictions_have_intervals_and_the_export_agrees(folder):
    done = run_command(folder, "predict", "first", "new.csv", "--output", "p.csv")
    assert done.code == 0, done.err
    with (folder / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "prediction", "std", "low", "high"]
    assert [float(row["prediction"]) for row in rows[:2]] == pytest.approx([106.5, 178.5], abs=3)
    assert float(rows[2]["std"]) > 3 * float(rows[0]["std"])  # far from all labels
    assert run_command(folder, "export", "first", "--output", "out").code == 0
    alone = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['alcore'] = None; sys.modules['gpytorch'] = None; "
         "sys.argv = ['predict.py', '../new.csv']; import runpy; sys.path[0] = '.'; "
         "runpy.run_path('predict.py', run_name='__main__')"],
        cwd=folder / "out", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    for mine, other in zip(rows, csv.DictReader(alone.stdout.splitlines()), strict=True):
        assert {name: float(one) for name, one in other.items()} == pytest.approx(
            {name: float(one) for name, one in mine.items()}, rel=1e-6
        )


def test_records_are_plausible_and_resume_extends_the_run(folder):
    assert run(folder, "whole", "3").code == 0
    assert run_command(folder, "resume", "first", "--steps", "3").code == 0
    whole, resumed = (
        json.loads((folder / "active_learning_logs" / name / "uncertainty_metrology.json").read_text())
        for name in ("whole", "first")
    )
    assert resumed == whole
    assert all(0 <= record["coverage"] <= 1 and record["crps"] > 0 for record in whole)
    assert whole[-1]["nll"] < 3
