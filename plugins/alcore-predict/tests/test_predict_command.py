"""``alcore predict``; test_predict_prediction.py has what is predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def run(build, tmp_path: Path) -> list[str]:
    """The arguments that name a finished run in the folder ``runs``, new inputs, and the code of its learner."""
    build(run_id="mine", max_active_learning_steps=2).run()
    np.savez(tmp_path / "new.npz", X=np.random.default_rng(0).normal(size=(25, 2)))
    (tmp_path / "ours.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(2, 1)\n")
    return ["predict", "mine", "new.npz", "--root", "runs", "--learner", "ours:net"]


def test_table_has_the_first_rows_and_says_how_to_get_all(command, run: list[str]) -> None:
    out, err = command(*run)
    lines = out.splitlines()
    assert err == ""
    assert lines[0].split() == ["row", "prediction", "probability", "entropy"]
    assert [line.split()[0] for line in lines[1:21]] == [str(row) for row in range(20)]
    assert lines[22] == "25 predictions of run mine, weights of step 1."
    assert lines[23] == "5 more rows; --output FILE.csv writes all."
    assert max(map(len, lines)) <= 80


def test_csv_json_and_npz_hold_the_same(command, run: list[str], tmp_path: Path) -> None:
    told = json.loads(command(*run, "--json")[0])
    for name in ("p.csv", "p.json", "p.npz"):
        out, _ = command(*run, "--output", name)
        assert out == f"{name}: 25 predictions of run mine, weights of step 1\n"
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [float(row["p(1)"]) for row in rows] == [prediction["p(1)"] for prediction in told["predictions"]]
    assert json.loads((tmp_path / "p.json").read_text()) == told
    with np.load(tmp_path / "p.npz") as arrays:
        assert arrays["values"].tolist() == [int(row["prediction"]) for row in rows]


def test_untrained_weights_are_warned_of(command, build, run: list[str]) -> None:
    build(run_id="new", skip_training=True, max_active_learning_steps=0).run()
    _, err = command("predict", "new", *run[2:])
    assert "finished no training yet" in err


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (["--step", "9"], "it has those of 0 to 1. Give --step 1"),
        (["--output", "p.txt"], "predictions are written as .csv, .json, .npz"),
        (["--learner", "ours:nothing"], "ours:nothing can't be imported"),
    ],
)
def test_wrong_flags_are_told(command, run: list[str], change: list[str], fault: str) -> None:
    out, err = command(*run, *change, code=2)
    assert out == ""
    assert fault in err
    assert err.count("\n") == 1


def test_missing_file_is_told(command, run: list[str]) -> None:
    _, err = command("predict", "mine", "nothing.npz", *run[3:], code=2)
    assert "there is no file nothing.npz" in err
