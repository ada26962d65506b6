"""`rebuild_data` and `rebuild_learner`: a finished run's data and learner, made again."""

from __future__ import annotations

import pytest
import torch
from helpers.separate import Expert, Last, separate_pools

from alcore.errors import UsageError
from alcore.experiment import build as build_driver
from alcore.experiment import rebuild_data, rebuild_learner, resolve
from alcore.store.reading import Run


class Fitted:
    """A learner that is a function of what is labeled: the mean of the inputs."""

    def __init__(self):
        self.rows, self.mean = 0, None

    def __call__(self, inputs):
        return inputs.float() - (self.mean or 0.0)

    def rebuild(self, pool):
        self.rows = len(pool)
        self.mean = float(pool.batch(torch.arange(len(pool)))[0].mean())

    def state_dict(self):
        return {"rows": self.rows}

    def load_state_dict(self, state):
        self.rows = state["rows"]


class Loop:
    def __call__(self, model, train_dataloader=None, **arguments):
        with torch.no_grad():
            for weights in model.parameters() if isinstance(model, torch.nn.Module) else ():
                weights += 1.0


@pytest.fixture
def make(registry, chosen, monkeypatch, tmp_path):
    """Return a function that runs two steps with a learner, and returns the Driver."""

    def run(learner):
        offers = registry.plugins[0].offers
        offers["data"]["moons"], offers["query"]["uq"], offers["label"]["dummy"] = separate_pools, Last, Expert
        offers["learner"]["mlp"], offers["loop"]["default"] = learner, Loop
        monkeypatch.setattr("alcore.experiment.trained.installed", lambda: registry)
        sets = [f"driver.root_log_dir={tmp_path}", "driver.max_active_learning_steps=2"]
        driver = build_driver(resolve(chosen(*sets, metrology=[]), registry), run_id="done")
        driver.run()
        return driver

    return run


def test_data_has_the_labels_in_training_order_and_learner_the_last_weights(make):
    driver = make(lambda: torch.nn.Linear(1, 2))
    run = Run(driver.log_dir)
    data = rebuild_data(run)
    inputs, targets = data.train.batch(torch.arange(len(data.train)))
    assert inputs.flatten().tolist() == [0, 1, 14, 15, 12, 13]
    assert targets.tolist() == [0, 1, 0, 1, 0, 1]
    learner = rebuild_learner(run, data)
    assert not learner.training
    for name, weights in driver.learner.state_dict().items():
        assert torch.equal(learner.state_dict()[name], weights)


def test_a_learner_that_is_a_function_of_the_labels_is_fitted_again(make):
    run = Run(make(Fitted).log_dir)
    learner = rebuild_learner(run, rebuild_data(run))
    assert learner.rows == 6
    assert learner.mean == pytest.approx((0 + 1 + 14 + 15 + 12 + 13) / 6)


def test_another_learner_and_a_run_that_was_built_in_python_are_refused(make, registry):
    run = Run(make(lambda: torch.nn.Linear(1, 2)).log_dir)
    data = rebuild_data(run)
    registry.plugins[0].offers["learner"]["mlp"] = lambda: torch.nn.Linear(1, 3)
    with pytest.raises(UsageError, match="not the one of this run"):
        rebuild_learner(run, data)
    (run.folder / "experiment.toml").write_text("[python.driver]\nseed = 0\n")
    with pytest.raises(UsageError, match="built in Python"):
        rebuild_data(run)
