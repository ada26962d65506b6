"""A run that was interrupted and taken up again equals one that never was, byte for byte."""

from __future__ import annotations

import queue

import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_sklearn import SklearnLearner, SklearnUncertaintyQuery
from alcore_testing import differences, essence_of

from alcore import Driver
from alcore import config as c
from alcore.training import FittingLoop


class Cut(KeyboardInterrupt):
    """Where a run is interrupted."""


class Points:
    """Counts the places where a run could be cut, and cuts it at one of them."""

    def __init__(self, cut_at=None):
        self.cut_at, self.passed = cut_at, 0

    def __call__(self):
        self.passed += 1
        if self.passed == self.cut_at:
            raise Cut


def cuttable(cls, method):
    """Return a subclass that may be cut before and after a method, which is named as its base is."""

    def around(self, *args, **kwargs):
        self.point()
        result = getattr(super(made, self), method)(*args, **kwargs)
        self.point()
        return result

    made = type(cls.__name__, (cls,), {method: around})
    return made


Query = cuttable(SklearnUncertaintyQuery, "sample")
Label = cuttable(DummyLabelStrategy, "label")
Metrology = cuttable(F1Metrology, "compute")
Loop = cuttable(FittingLoop, "__call__")


@pytest.fixture
def make(tmp_path, pool_of):
    def build(point, run_id, *, steps=3, labeled=range(5, 30), **settings):
        pool = pool_of(labeled=labeled)
        parts = [Query(3, "ExtraTreesClassifier", {"n_estimators": 3}), Label(), Metrology(), Loop()]
        for part in parts:
            part.point = point
        query, label, metrology, loop = parts
        return Driver(
            c.DriverConfig(
                batch_size=8, max_active_learning_steps=steps, run_id=run_id, root_log_dir=tmp_path, device="cpu",
                seed=5, **settings,
            ),
            SklearnLearner("RandomForestClassifier", {"n_estimators": 3}, info=pool.info),
            c.StrategiesConfig([query], queue.Queue, label, [metrology]),
            c.TrainingConfig(pool, max_training_epochs=2, train_loop_fn=loop),
        )  # fmt: skip

    return build


@pytest.mark.parametrize("interval", [1, 2, 0])
def test_cut_at_any_point_and_resumed_equals_uninterrupted(make, interval):
    counting = Points()
    whole = make(counting, "whole", checkpoint_interval=interval)
    whole.run()
    expected = essence_of(whole.log_dir)
    assert counting.passed == 3 * 8
    assert len(expected["requests"]) == 9
    for place in range(1, counting.passed + 1, 3 if interval == 1 else 5):
        with pytest.raises(Cut):
            make(Points(place), f"cut-{place}", checkpoint_interval=interval).run()
        again = make(Points(), f"cut-{place}", checkpoint_interval=interval)
        again.restore()
        again.run()
        assert differences(essence_of(again.log_dir), expected) == [], place


def test_the_learner_is_fitted_again_when_a_run_is_taken_up(make):
    first = make(Points(), "run")
    first.run()
    again = make(Points(), "run")
    again.restore()
    inputs = first.train_datapool.inputs(torch.arange(60))
    assert again.learner.state_dict() == first.learner.state_dict()
    assert first.learner.state_dict()["rows"] == 31  # the last step's labels came after it was fitted
    assert len(again.train_datapool) == 34
    assert again.infer(inputs).numpy().tobytes() == first.infer(inputs).numpy().tobytes()


def test_a_learner_fitted_beforehand_is_part_of_the_run(make, pool_of):
    """Without training phases it stays as it was given, when the run is taken up as well."""

    def fitted(point, **kwargs):
        driver = make(point, "run", skip_training=True, **kwargs)
        driver.learner.fit(pool_of(), seed=3)
        return driver

    first = fitted(Points(), steps=2)
    first.run()
    again = fitted(Points(), steps=3)
    again.restore()
    inputs = first.train_datapool.inputs(torch.arange(60))
    assert torch.equal(again.learner(inputs), first.learner(inputs))
    again.run()
    assert again.learner.state_dict() == first.learner.state_dict()
