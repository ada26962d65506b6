"""From a table to predictions: export, predict with and without alcore, and a run that begins with the weights."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from alcore_testing import run_command

ALONE = (
    "import sys, runpy; "
    "sys.modules.update(dict.fromkeys('alcore alcore_predict alcore_tabular alcore_moons alcore_bayes'.split())); "
    "sys.argv[:] = sys.argv[1:]; sys.path[0] = sys.argv[0].rpartition('/')[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a script in a process in which alcore can't be imported."""


def run_alcore(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Call the command in this process, and return what it wrote to stdout, or its message where it is to fail."""
    done = run_command(cwd, *arguments)
    assert done.code == code, done.err
    return done.err if code else done.out


def alone(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ALONE, script, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with tables, runs on them, and their exports."""
    folder = tmp_path_factory.mktemp("tables")
    draw = random.Random(0)
    rows = []
    for k in range(160):
        size, color = draw.gauss(40, 9), draw.choice(["red", "green", "blue"])
        kind = "big" if size > 45 else ("mid" if size > 36 else "small")
        rows.append([f"id{k}", f"{size:.2f}" if k % 13 else "NA", color, f"{3 * size + len(color):.3f}", kind])
    for name, header, part in (
        ("kinds.csv", ["id", "size", "color", "weight", "kind"], rows),
        ("new.csv", ["color", "weight", "size"], [[row[2], row[3], row[1]] for row in rows[:30]]),
        ("prices.csv", ["size", "color", "price"], [row[1:4] for row in rows if row[1] != "NA"]),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *part])
    table = ["--data", "csv", "--steps", "2", "-q", "--set"]
    run_alcore(
        *("run", *table, "data.csv.path=kinds.csv", "--set", "data.csv.target=kind", "--set", 'data.csv.drop=["id"]'),
        *("--set", "data.csv.missing=fill", "--run-id", "kinds"),
        cwd=folder,
    )
    run_alcore(
        *("run", *table, "data.csv.path=prices.csv", "--set", "data.csv.target=price", "--query", "random"),
        *("--learner", "ensemble", "--set", "learner.ensemble.members=3", "--run-id", "prices"),
        cwd=folder,
    )
    for name in ("kinds", "prices"):
        run_alcore("export", name, cwd=folder)
    return folder


@pytest.mark.parametrize(("run", "new"), [("kinds", "new.csv"), ("prices", "prices.csv")])
def test_export_predicts_without_alcore_what_alcore_predicts(folder: Path, run: str, new: str) -> None:
    run_alcore("predict", run, new, "--output", f"{run}-with.csv", cwd=folder)
    done = alone(folder, f"{run}-export/predict.py", new, f"{run}-alone.csv")
    assert (done.returncode, done.stderr) == (0, "")
    one, other = rows_of(folder / f"{run}-with.csv"), rows_of(folder / f"{run}-alone.csv")
    assert len(one) == len(rows_of(folder / new))
    for known, found in zip(one, other, strict=True):
        assert list(known) == list(found)
        assert known["prediction"] == found["prediction"]
        for name in set(known) - {"prediction"}:
            assert float(known[name]) == pytest.approx(float(found[name]), rel=1e-4, abs=1e-6), (
                name
            )  # float32, in sums of another order


def test_new_file_that_does_not_fit_is_told_without_a_traceback(folder: Path) -> None:
    done = alone(folder, "kinds-export/predict.py", "prices.csv")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("lacks a column 'weight'; has a column 'price', which is not known")
    assert "Traceback" not in done.stderr


def test_unknown_categories_are_told_without_alcore_as_alcore_tells_them(folder: Path) -> None:
    (folder / "odd.csv").write_text("color,weight,size\nred,120.5,40\nviolet,121,41\npink,90.1,30\n")
    done = alone(folder, "kinds-export/predict.py", "odd.csv")
    assert done.returncode == 0
    told = run_command(folder, "predict", "kinds", "odd.csv").err.strip()
    assert told.startswith("alcore: warning: odd.csv: column 'color' holds categories that the model doesn't know")
    assert "in 2 of 3 rows, for instance 'violet'; they count as none." in told
    assert done.stderr.strip() == told.removeprefix("alcore: ")


@pytest.mark.parametrize(("text", "fault"), [("", "holds no text"), ("color,weight,size\n", "no row below it")])
def test_file_without_rows_is_refused_with_and_without_alcore(folder: Path, text: str, fault: str) -> None:
    (folder / "none.csv").write_text(text)
    done = alone(folder, "kinds-export/predict.py", "none.csv")
    assert done.returncode == 1
    assert fault in done.stderr
    assert fault in run_alcore("predict", "kinds", "none.csv", cwd=folder, code=2)


def test_labels_are_those_of_the_file(folder: Path) -> None:
    table, lines = rows_of(folder / "kinds.csv"), (folder / "kinds.csv").read_text().splitlines()
    labels = rows_of(folder / "kinds-export" / "labels.csv")
    assert {row["state"] for row in labels} == {"initial", "labeled"}
    for row in labels:
        assert row["label"] == table[int(row["row"])]["kind"]
        assert lines[int(row["line"]) - 1].startswith(f"id{row['row']},")


def test_readme_names_every_file_and_its_code_works(folder: Path) -> None:
    export = folder / "kinds-export"
    text = (export / "README.txt").read_text()
    assert max(map(len, text.splitlines())) <= 100
    for path in export.iterdir():
        assert path.name == "README.txt" or path.name in text
    blocks = "".join(
        line.strip() + "\n"
        for line in text.splitlines()
        if line.startswith("    ") and not line.strip().startswith(("alcore", "python", "learner.load_state_dict"))
        and not line.startswith("     ")
    )  # fmt: skip
    code = f"import torch\n{blocks}".replace("learner(inputs)", "learner(torch.from_numpy(data['inputs']))")
    (export / "check.py").write_text(f"{code}\nprint(outputs.shape[-2], len(data['targets']))\n")
    done = alone(export, f"{export}/check.py")
    assert done.stdout.split() == [str(len(rows_of(export / "labels.csv")))] * 2, done.stderr


def test_prediction_needs_neither_the_table_nor_the_export(folder: Path) -> None:
    (folder / "kinds.csv").rename(folder / "away.csv")
    try:
        told = json.loads(run_alcore("predict", "kinds", "new.csv", "--json", cwd=folder))
    finally:
        (folder / "away.csv").rename(folder / "kinds.csv")
    assert {prediction["prediction"] for prediction in told["predictions"]} <= {"big", "mid", "small"}


def test_run_begins_with_exported_weights_and_is_repeated_from_its_file(folder: Path) -> None:
    weights = ["--weights", "kinds-export/model.safetensors"]
    run_alcore("run", "active_learning_logs/kinds/experiment.toml", *weights, "--run-id", "again", "-q", cwd=folder)
    shown = (folder / "active_learning_logs/again/experiment.toml").read_text()
    assert f'weights = "{folder}/kinds-export/model.safetensors"' in shown
    assert "weights_sha256" in shown
    (folder / "kinds-export/model.safetensors").rename(folder / "moved.safetensors")
    try:
        run_alcore("resume", "again", "--steps", "3", "-q", cwd=folder)
        told = run_alcore("run", "active_learning_logs/again/experiment.toml", cwd=folder, code=2)
    finally:
        (folder / "moved.safetensors").rename(folder / "kinds-export/model.safetensors")
    assert "there is no weights file" in told
