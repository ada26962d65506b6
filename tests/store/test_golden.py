"""A run directory that an earlier commit wrote is read, and gone on with, by this one.

``tests/store/golden/format-3`` was written by `build(...).run()` below, with two steps, on alcore 0.1.0. It is never
written again: what changes in the format of a run must be seen here.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from alcore_predict import export_run

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.store import checkpoints
from alcore.store.fork import fork_run
from alcore.store.formats import FORMAT
from alcore.store.reading import Run, summaries

GOLDEN = Path(__file__).parent / "golden" / f"format-{FORMAT}"


def build(root: Path, run_id: str, toys: type, steps: int) -> Driver:
    inputs = torch.arange(60.0).reshape(30, 2) / 30 - 1  # exact in every version of torch
    learner = torch.nn.Linear(2, 1)
    with torch.no_grad():
        learner.weight.fill_(0.25)
        learner.bias.zero_()
    return Driver(
        config=c.DriverConfig(batch_size=4, max_active_learning_steps=steps, run_id=run_id, root_log_dir=root, seed=1),
        learner=learner,
        strategies_config=c.StrategiesConfig(
            [toys.FirstQuery()], queue.Queue, toys.EchoLabel(), [toys.CountMetrology()]
        ),
        training_config=c.TrainingConfig(
            train_datapool=TensorPool(inputs, torch.arange(30) % 2, labeled=range(6)),
            max_training_epochs=1,
            optimizer_config=c.OptimizerConfig(torch.optim.Adam, {"lr": 0.125}),
        ),
    )


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "golden"))


def test_it_is_read(golden: Path) -> None:
    before = _files(golden)
    run = Run(golden)
    assert run.meta()["reason"] == "all 2 steps are done"
    assert [request["sample"] for request in run.requests()] == [6, 7, 8, 9, 10, 11]
    assert {request["state"] for request in run.requests()} == {"labeled"}
    assert [step["labeled"] for step in run.steps()] == [3, 3]
    assert run.records()["count_metrology"][1] == {"step": 1, "train_samples": 9, "labelled": 9.0}
    assert len(run.checkpoints()) == 3
    for checkpoint in run.checkpoints():
        state = checkpoints.load(golden / "ckpt" / checkpoint["file"], checkpoint["sha256"])
        assert state["model"]["weight"].shape == (1, 2)
    assert [len(rows) for rows in run.decisions().values()] == [6, 6, 0, 2, 2, 2]
    assert _files(golden) == before


def test_it_is_exported_and_forked_and_stays_as_it_is(golden: Path, toys: type) -> None:
    before = _files(golden)
    assert next(summaries(golden.parent)).status == "done"
    assert len(export_run(Run(golden), golden.parent / "out")) >= 6
    made = fork_run(Run(golden), 0, run_id="forked")
    assert _files(golden) == before
    assert _version(made.folder) == FORMAT
    driver = build(golden.parent, "forked", toys, steps=2)
    driver.restore()
    driver.run()
    assert driver.stop_reason == "all 2 steps are done"
    assert Run(made.folder).decisions()["records"] == Run(golden).decisions()["records"]


def test_it_is_gone_on_with(golden: Path, toys: type) -> None:
    before = Run(golden).decisions()
    driver = build(golden.parent, "golden", toys, steps=3)
    driver.restore()
    assert Run(golden).decisions() == before
    driver.run()
    assert driver.stop_reason == "all 3 steps are done"
    assert len(driver.train_datapool) == 6 + 9
    assert len(Run(golden).steps()) == 3
    assert _version(golden) == FORMAT


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _version(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "run.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
