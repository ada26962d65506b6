"""The examples run as the README says, in a folder of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_moons(tmp_path: Path) -> None:
    output = run("moons.py", "--steps", "12", folder=tmp_path)
    (folder,) = (tmp_path / "active_learning_logs").glob("[!.]*")
    records = json.loads((folder / "f1_metrology.json").read_text())
    assert [record["train_samples"] for record in records] == [50 + 10 * step for step in range(12)]
    assert f"F1 {records[-1]['f1']:.3f}" in output
    assert len(list((folder / "ckpt").iterdir())) == 13
    assert (folder / "driver_log.json").is_file()
    assert (folder / "console.log").is_file()


def test_moons_with_a_custom_loop(tmp_path: Path) -> None:
    default = run("moons.py", "--steps", "3", folder=tmp_path)
    custom = run("moons.py", "--steps", "3", "--custom-loop", folder=tmp_path)
    assert default.splitlines()[:2] == custom.splitlines()[:2]


@pytest.mark.parametrize("loop", [[], ["--by-hand"]], ids=["default loop", "own loop"])
def test_from_physicsnemo(tmp_path: Path, loop: list[str]) -> None:
    output = run("from_physicsnemo.py", "--steps", "3", *loop, folder=tmp_path).splitlines()
    assert output[0].startswith("16 solver runs, RMSE ")
    first, last = (float(word) for word in output[0].removeprefix("16 solver runs, RMSE ").split(" -> "))
    assert last < first
    assert "driver.restore()" in output[1]
    assert output[2] == "20 solver runs after one more step; phases: training, metrology, query, labeling"
    (folder,) = (tmp_path / "active_learning_logs").glob("[!.]*")
    assert len(json.loads((folder / "grid_error.json").read_text())) == 4
    assert (folder / "strategies" / "solver" / "last_input.txt").is_file()
    assert (folder / "strategies" / "grid_error" / "checkpoints" / "last.txt").is_file()
    trained = list((folder / "ckpt").glob("*-training-*"))
    assert len(trained) == 4, "one after each training"


def test_digits(tmp_path: Path) -> None:
    words = ["run", "digits.toml", "--allow-code", "--steps", "7", "--root", str(tmp_path), "--run-id", "digits"]
    done = subprocess.run(
        [sys.executable, "-m", "alcore", *words], cwd=EXAMPLES / "digits", capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "digits" / "classification_metrology.json").read_text())
    assert [record["train_samples"] for record in records] == [50 + 10 * step for step in range(8)]
    assert records[-1]["accuracy"] > records[0]["accuracy"] + 0.2
    text = (EXAMPLES / "digits" / "README.md").read_text()
    told = {int(row[0]): float(row[1]) for row in re.findall(r"^\| (\d+) \| ([\d.]+) \|", text, re.MULTILINE)}
    assert all(abs(told[50 + 10 * step] - records[step]["accuracy"]) < 0.1 for step in (0, 3, 6))


NAMES = [
    "append", "strategy_dir", "checkpoint_dir", "logger", "is_attached", "__len__", "checkpoint_on_training",
    "checkpoint_on_metrology", "checkpoint_on_query", "checkpoint_on_labeling", "train_step_fn", "validate_step_fn",
    "device", "dtype", "checkpoint_frequency", "use_amp", "amp_type", "compile", "label", "is_initialized",
    "load_checkpoint", "DriverProtocol", "LearnerProtocol", "AbstractQueue", "ActiveLearningPhase", "DataPool",
]  # fmt: skip
"""Of PhysicsNeMo's interface, as they are written there."""


def test_example_and_page_have_each_name_of_physicsnemo() -> None:
    example = (EXAMPLES / "from_physicsnemo.py").read_text()
    page = (EXAMPLES.parent / "docs" / "from-physicsnemo.md").read_text()
    assert [name for name in NAMES if name not in example and name != "__len__"] == []
    assert [name for name in (*NAMES, "save_checkpoint", "reset") if name not in page] == []


@pytest.mark.timeout(280)
def test_baselines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = run("baselines.py", "--seeds", "3", "--steps", "25", "--output", "out", folder=tmp_path)
    result = json.loads((tmp_path / "out" / "baselines.json").read_text())
    assert result["seeds"] == 3
    assert [row["labels"] for row in result["curve"]] == [50 + 10 * step for step in range(25)]
    middle, last = result["curve"][15], result["curve"][-1]
    assert middle["uncertainty"] > middle["random"]
    assert result["roofline"] > last["random"] - 0.05
    assert (tmp_path / "out" / "baselines.png").read_bytes().startswith(b"\x89PNG")
    assert "uncertainty" in output
