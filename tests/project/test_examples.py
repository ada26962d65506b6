"""The examples run as the README says, in a folder of their own."""

from __future__ import annotations

import json
import queue
from pathlib import Path

import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_moons import MLP, MoonsPool
from alcore_random import RandomQuery
from alcore_uq import ClassifierUQQuery
from helpers.examples import EXAMPLES, run_example
from helpers.processes import run_forked

from alcore import Driver
from alcore import config as c
from alcore.protocols import QueryStrategy


def run(script: str, *arguments: str, folder: Path) -> str:
    done = run_forked(EXAMPLES / script, *arguments, cwd=folder, timeout=250)
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
    records = run_example(EXAMPLES / "digits", "digits.toml", "--allow-code", "--steps", "7", root=tmp_path)
    assert [record["train_samples"] for record in records] == [50 + 10 * step for step in range(8)]
    assert all(record["samples"] == 500 for record in records)
    assert records[-1]["accuracy"] > records[0]["accuracy"] + 0.2


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


def area(seed: int, query: QueryStrategy, folder: Path) -> float:
    """Run 15 steps of the moons experiment; return the mean F1 along its curve."""
    torch.manual_seed(seed)
    f1 = F1Metrology()
    Driver(
        config=c.DriverConfig(
            batch_size=16, max_active_learning_steps=15, fine_tuning_lr=0.005, checkpoint_interval=0,
            root_log_dir=folder, seed=seed,
        ),
        learner=MLP(),
        strategies_config=c.StrategiesConfig([query], queue.Queue, DummyLabelStrategy(), [f1]),
        training_config=c.TrainingConfig(
            train_datapool=MoonsPool(seed=seed),
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.01}),
            max_training_epochs=10,
            max_fine_tuning_epochs=5,
        ),
    ).run()  # fmt: skip
    return sum(record["f1"] for record in f1.records) / len(f1.records)


def test_with_uncertainty_f1_rises_faster_than_with_random_choice(tmp_path: Path) -> None:
    """In a small way what `alcore benchmark --query uq --query random --seeds 10 --ceiling` does."""
    chosen = [area(seed, ClassifierUQQuery(max_samples=10), tmp_path) for seed in range(3)]
    drawn = [area(seed, RandomQuery(max_samples=10), tmp_path) for seed in range(3)]
    assert sum(chosen) > sum(drawn) + 0.1
