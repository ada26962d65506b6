"""The training loop, and how it and the learner fit into a driver and the command."""

from __future__ import annotations

import queue

import numpy as np
import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_random import RandomQuery
from alcore_sklearn import SklearnLearner
from alcore_testing import run_command
from alcore_torchloop import DefaultTrainingLoop
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from alcore import Driver, UsageError, plugins
from alcore import config as c
from alcore.inference import model_digest
from alcore.training import FittingLoop


def make_driver(folder, pool, learner, *, steps=3, seed=0, loop=None, query=None, dtype=torch.float64, **settings):
    return Driver(
        c.DriverConfig(
            batch_size=4, max_active_learning_steps=steps, root_log_dir=folder, device="cpu", seed=seed, dtype=dtype,
            **settings,
        ),
        learner,
        c.StrategiesConfig([query or RandomQuery(5)], queue.Queue, DummyLabelStrategy(), [F1Metrology()]),
        c.TrainingConfig(pool, max_training_epochs=7, train_loop_fn=loop or FittingLoop()),
    )  # fmt: skip


class Items:
    """A pool without `batch` and ids."""

    def __init__(self, pool):
        self.items, self.info = [pool[i] for i in range(len(pool))], pool.info

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def append(self, item):
        self.items.append(item)


def test_each_step_fits_all_labels_in_the_order_of_labeling(tmp_path, pool_of):
    pool = pool_of()
    learner = SklearnLearner("LogisticRegression", info=pool.info)
    driver = make_driver(tmp_path, pool, learner)
    everything = pool.inputs(torch.arange(60))
    with driver.session():
        while driver.stop_reason is None:
            rows, codes = pool.batch(torch.arange(len(pool)))
            driver.active_learning_step()
            expected = LogisticRegression().fit(rows.numpy(), codes.numpy()).predict_proba(everything.numpy())
            assert np.array_equal(learner(everything).numpy(), expected)
    assert len(pool) == 40
    accuracy = [record["accuracy"] for record in driver.metrology_strategies[0].records]
    assert len(accuracy) == 3


def test_the_order_of_the_pool(pool_of):
    ids = [30, 2, 17, 9, 44, 3, 28, 50, 7, 1]
    forwards, backwards = pool_of(labeled=ids), pool_of(labeled=ids[::-1])
    rows, codes = forwards.batch(torch.argsort(torch.tensor(ids)))
    everything = forwards.inputs(torch.arange(60))
    expected = SVC().fit(rows.numpy(), codes.numpy()).decision_function(everything.numpy())
    for pool in (forwards, backwards):
        learner = SklearnLearner("SVC", order="pool", info=pool.info)
        learner.fit(pool, dtype=torch.float64)
        assert np.array_equal(learner(everything).numpy(), expected)
    with pytest.raises(UsageError, match=r"order='pool' needs a pool with labeled_ids.* Items has none"):
        learner.fit(Items(forwards))


@pytest.mark.parametrize("form", ["items", "batches", "DataLoader"])
def test_without_a_run_the_batches_of_a_loader_are_fitted(pool_of, form):
    pool = pool_of()
    expected, learner = (SklearnLearner("LogisticRegression", info=pool.info) for _ in range(2))
    expected.fit(pool)
    inputs, targets = pool.batch(torch.arange(len(pool)))
    loader = {
        "items": torch.utils.data.DataLoader(Items(pool), batch_size=4),
        "batches": [(inputs[:9], targets[:9]), (inputs[9:], targets[9:])],
        "DataLoader": torch.utils.data.DataLoader(pool, batch_size=7),
    }[form]
    FittingLoop()(learner, None, loader)
    everything = pool.inputs(torch.arange(60))
    assert torch.equal(learner(everything), expected(everything))


def test_the_random_state_depends_on_run_seed_and_step(tmp_path, pool_of):
    def digests(seed):
        pool, fits = pool_of(), []
        learner = SklearnLearner("RandomForestClassifier", {"n_estimators": 2}, info=pool.info)
        driver = make_driver(tmp_path, pool, learner, seed=seed, skip_labeling=True)
        with driver.session():
            for _ in range(2):
                driver.active_learning_step()
                fits.append((model_digest(learner), learner.fitted.random_state))
        return fits

    one, same, other = digests(1), digests(1), digests(2)
    assert one == same
    assert len({state for _, state in one + other}) == len({digest for digest, _ in one + other}) == 4


def test_inputs_are_fitted_and_asked_in_the_type_of_the_run(tmp_path, pool_of):
    pool = pool_of()
    learner = SklearnLearner("LogisticRegression", info=pool.info)
    driver = make_driver(tmp_path, pool, learner, steps=1, dtype=torch.float32)
    driver.run()
    assert learner.fitted.coef_.dtype == np.float32


def test_the_default_loop_fits_it_alike(tmp_path, pool_of):
    digests = []
    for number, loop in enumerate([FittingLoop(), DefaultTrainingLoop()]):
        pool = pool_of()
        learner = SklearnLearner("RandomForestClassifier", {"n_estimators": 2}, info=pool.info)
        make_driver(tmp_path / str(number), pool, learner, loop=loop).run()
        digests.append(model_digest(learner))
    assert digests[0] == digests[1]


def test_initial_weights_mean_an_unfitted_learner(tmp_path, pool_of):
    pool = pool_of()
    learner = SklearnLearner("LogisticRegression", info=pool.info)
    driver = make_driver(tmp_path, pool, learner)
    driver.training_config.reset_learner = True
    driver.run()
    assert learner.state_dict()["rows"] == 35


def test_plugin_offers_its_parts_by_name():
    registry = plugins.installed()
    assert type(registry.make("learner", "sklearn", estimator="SVC")) is SklearnLearner
    assert type(registry.make("loop", "sklearn")) is FittingLoop
    assert registry.make("query", "sklearn-uq", max_samples=3).max_samples == 3


def test_the_command(tmp_path):
    """What is asked for by name and taken up again from its experiment file, tables of parameters included."""
    values = [
        "learner.sklearn.estimator=CalibratedClassifierCV",
        'learner.sklearn.parameters={cv=2, estimator={use="SVC", C=2.0}}',
        "query.sklearn-uq.parameters={C=0.1}",
    ]
    parts = ["--learner", "sklearn", "--query", "sklearn-uq", "--steps", "2", "--run-id", "one"]
    made = run_command(tmp_path, "run", *parts, *(word for value in values for word in ("--set", value)))
    assert made.code == 0, made.err
    extended = run_command(tmp_path, "resume", "one", "--steps", "3")
    assert extended.code == 0, extended.err
    assert "all 3 steps are done" in extended.out
