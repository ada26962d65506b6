"""Choices and scores don't depend on the unit of the targets, with the built-in network and data from a table."""

import csv
import math
import random

import numpy as np
import pytest
import torch
from alcore_predict import export_run
from safetensors.torch import load_file

from alcore import experiment, plugins
from alcore.outputs import evaluating
from alcore.store import Run

LEARNERS = {
    "network": ["learner.mlp.dropout=0.1"],
    "ensemble": ["learner.ensemble.members=2"],
}


def write(path, scale):
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "y"])
        for _ in range(80):
            a, b = draw.gauss(0, 1), draw.gauss(0, 1)
            writer.writerow([a, b, scale * float(np.float32(150 + 40 * math.sin(2 * a) + 30 * b))])


def run(folder, scale, query, learner):
    folder.mkdir()
    write(folder / "t.csv", scale)
    torch.manual_seed(0)
    chosen = experiment.Experiment()
    chosen.choose("data", ["csv"])
    chosen.choose("learner", ["mlp" if learner == "network" else learner])
    chosen.choose("query", [query])
    chosen.choose("metrology", ["regression"])
    chosen.complete()
    for text in (
        f"data.csv.path={folder / 't.csv'}", "data.csv.target=y", "data.csv.initial=12", f"query.{query}.max_samples=6",
        "driver.max_active_learning_steps=3", "driver.seed=3", f"driver.root_log_dir={folder}",
        "training.max_training_epochs=10", *LEARNERS[learner],
    ):  # fmt: skip
        chosen.set(text)
    driver = experiment.build(experiment.resolve(chosen, plugins.installed()), run_id="r")
    driver.run()
    return driver


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("query", ["random", "gsx", "gsy", "igs", "emcm", "variance"])
def test_a_run_chooses_and_scores_alike_in_any_unit(tmp_path, query, learner):
    one, other = (run(tmp_path / str(scale), scale, query, learner) for scale in (1, 1024))
    asked = [[request["sample"] for request in Run(each.log_dir).requests()] for each in (one, other)]
    assert len(asked[0]) == 18
    assert asked[0] == asked[1]
    for mine, theirs in zip(*(each.metrology_strategies[0].records for each in (one, other)), strict=True):
        assert mine["r2"] == pytest.approx(theirs["r2"], rel=1e-9)
        assert mine["rmse"] * 1024 == pytest.approx(theirs["rmse"], rel=1e-9)


def test_what_is_exported_has_the_unit_of_the_file(tmp_path):
    driver = run(tmp_path / "runs", 1, "igs", "network")
    list(export_run(Run(driver.log_dir), tmp_path / "out"))
    with np.load(tmp_path / "out" / "labeled.npz") as arrays:
        inputs, targets = torch.from_numpy(arrays["inputs"]), arrays["targets"]
    assert 100 < targets.mean() < 200
    made = plugins.installed().make("learner", "mlp", info=driver.info, dropout=0.1)
    made.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    with evaluating(made):
        torch.testing.assert_close(made(inputs), driver.infer(inputs))
        assert abs(float(made(inputs).mean()) - targets.mean()) < 30
