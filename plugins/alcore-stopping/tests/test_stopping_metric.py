"""Criteria on what is measured, against the definition written out."""

import math
import queue
import types

import pytest
import torch
from alcore_stopping import MetricReached, Plateau
from alcore_stopping.metrics_of_run import lower_is_better
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.store import Run
from alcore.strategies import BaseMetrology


class Scripted(BaseMetrology):
    """Measures what it was told to, and nothing in steps where that is None."""

    def __init__(self, values, figure="f1"):
        super().__init__()
        self.values, self.figure = values, figure

    def compute(self, *args, **kwargs):
        value = self.values[self.driver.active_learning_step_idx]
        if value is not None:
            self.append_record(on="pool", **{self.figure: value})


def make_driver(folder, criterion, metrology, *, steps=None, **options):
    pool = TensorPool(torch.zeros(9, 1), torch.arange(9) % 2, labeled=[0])
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu",
            **options,
        ),
        torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=metrology),
        c.TrainingConfig(pool, max_training_epochs=0),
        plugins=[criterion],
    )  # fmt: skip


def stops(criterion, values):
    """The step in which a criterion ends a run that measures these values, and its reason; no Driver is made."""
    metrology = types.SimpleNamespace(records=[])
    driver = types.SimpleNamespace(
        measures=True,
        metrology_strategies=[metrology],
        strategy_name=lambda _: "m",
    )
    for driver.active_learning_step_idx, value in enumerate(values):
        if value is not None:
            metrology.records.append({"step": driver.active_learning_step_idx, "f1": value})
        if reason := criterion.alcore_should_stop(driver):
            return driver.active_learning_step_idx, reason
    return None


series = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0, math.nan, None]), max_size=25)


@settings(max_examples=100, deadline=None)
@given(series, st.sampled_from([0.1, 0.5, 0.6]), st.sampled_from(["max", "min"]))
def test_metric_is_the_first_that_is_good_enough(values, threshold, mode):
    good = [
        step
        for step, value in enumerate(values)
        if value is not None and (value >= threshold if mode == "max" else value <= threshold)
    ]
    stopped = stops(MetricReached(threshold, mode=mode), values)
    assert (stopped and stopped[0]) == (good[0] if good else None)


def plateau(values, patience, min_delta, mode):
    """The first step before which `patience` measured steps in a row did not beat the best one before them."""
    sign = 1 if mode == "max" else -1
    measured = [(step, value) for step, value in enumerate(values) if value is not None]
    best, last_better = -math.inf, -1
    for place, (step, value) in enumerate(measured):
        if sign * value > best + min_delta or (best == -math.inf and not math.isnan(value)):
            best, last_better = sign * value, place
        if place - last_better >= patience:
            return step
    return None


@settings(max_examples=150, deadline=None)
@given(series, st.integers(1, 4), st.sampled_from([0.0, 0.2]), st.sampled_from(["max", "min"]))
def test_plateau_is_the_first_time_that_patience_is_over(values, patience, min_delta, mode):
    stopped = stops(Plateau(patience, min_delta, mode=mode), values)
    assert (stopped and stopped[0]) == plateau(values, patience, min_delta, mode)


def test_reasons():
    assert stops(MetricReached(0.9), [0.5, 0.90625])[1] == "f1 is 0.9062, at least 0.9 was wanted"
    assert stops(MetricReached(0.5), [0.5])[1] == "f1 is 0.5, at least 0.5 was wanted"
    assert stops(MetricReached(0.5, mode="min"), [0.5])[1] == "f1 is 0.5, at most 0.5 was wanted"
    assert stops(Plateau(2), [0.1, 0.5, 0.5, 0.4])[1] == "f1 hasn't become better than 0.5 in step 1 for 2 steps"
    assert stops(Plateau(1, 0.1), [0.5, 0.55])[1].endswith("than 0.5 in step 0 by more than 0.1 for 1 steps")
    assert stops(Plateau(2), [math.nan] * 3)[1] == "f1 hasn't become better for 2 steps"


def test_a_run_ends_with_the_reason(tmp_path):
    driver = make_driver(tmp_path, MetricReached(0.8), [Scripted([0.1, 0.7, 0.9, 1.0])])
    driver.run()
    assert driver.stop_reason == "f1 is 0.9, at least 0.8 was wanted"
    assert driver.active_learning_step_idx == 3
    assert Run(driver.log_dir).meta()["reason"] == driver.stop_reason


@pytest.mark.parametrize("name", ["accuracy", "second.accuracy", "scripted-2.accuracy"])
def test_metric_is_found_by_name_and_strategy(tmp_path, name):
    strategies = [Scripted([0.9] * 5), Scripted([0.1, 0.2, 0.9, 1.0], "accuracy")]
    driver = make_driver(tmp_path, MetricReached(0.8, name), strategies)
    if name == "second.accuracy":
        with pytest.raises(UsageError, match=r"measures 'second\.accuracy'.*accuracy.*f1"):
            driver.run()
    else:
        driver.run()
        assert driver.active_learning_step_idx == 3


def test_of_two_strategies_the_first_counts_unless_one_is_named(tmp_path):
    for folder, name, step in [("a", "f1", 3), ("b", "scripted-2.f1", 1), ("c", "scripted.f1", 3)]:
        strategies = [Scripted([0.1, 0.2, 0.9, 1.0]), Scripted([0.9] * 5)]
        driver = make_driver(tmp_path / folder, MetricReached(0.8, name), strategies)
        driver.run()
        assert driver.active_learning_step_idx == step


def test_records_without_a_step_or_a_number(tmp_path):
    class Bare(Scripted):
        def compute(self, *args, **kwargs):
            self.records += [{"f1": self.values[self.driver.active_learning_step_idx], "f1_of": "pool", "good": True}]

    class Text(Scripted):
        def compute(self, *args, **kwargs):
            self.records.append("measured")

    driver = make_driver(tmp_path, MetricReached(0.8), [Text([]), Bare([0.1, 0.9, 0.1])])
    driver.run()
    assert driver.active_learning_step_idx == 2


def test_a_figure_that_nobody_measures_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"measures 'f2': did you mean 'f1'\?"):
        make_driver(tmp_path, MetricReached(0.8, "f2"), [Scripted([0.1])], steps=1).run()
    with pytest.raises(UsageError, match=r"measures nothing, so 'f1' .*--metrology"):
        make_driver(tmp_path, Plateau(), None, steps=1).run()
    with pytest.raises(UsageError, match="measures nothing"):
        make_driver(tmp_path, Plateau(), [Scripted([0.1])], steps=1, skip_metrology=True).run()


def test_a_figure_that_is_not_measured_yet_is_waited_for(tmp_path):
    driver = make_driver(tmp_path, MetricReached(0.8), [Scripted([None, None, 0.9])], steps=5)
    driver.run()
    assert driver.active_learning_step_idx == 3


@pytest.mark.parametrize(
    ("name", "lower"),
    [("f1", False), ("rmse", True), ("val_loss", True), ("m.nll", True), ("accuracy", False), ("r2", False),
     ("p95_relative_l2", True),
     ("closs", False), ("MAE", True)],
)  # fmt: skip
def test_direction_is_inferred_from_the_name_of_the_metric(name, lower):
    assert lower_is_better(name) is lower
    assert MetricReached(0.5, name).mode == Plateau(name=name).mode == ("min" if lower else "max")
    assert MetricReached(0.5, name, "max").mode == "max"


def test_parameters():
    for threshold in (math.nan, math.inf):
        with pytest.raises(UsageError, match="threshold is"):
            MetricReached(threshold)
    with pytest.raises(UsageError, match="mode is 'least'"):
        MetricReached(0.5, mode="least")
    with pytest.raises(UsageError, match="mode is 'least'"):
        Plateau(mode="least")
    with pytest.raises(UsageError, match="patience is 0"):
        Plateau(0)
    for delta in (-0.1, math.nan, math.inf):
        with pytest.raises(UsageError, match="min_delta is"):
            Plateau(min_delta=delta)
