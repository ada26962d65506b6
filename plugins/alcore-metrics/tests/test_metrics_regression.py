"""The figures of a regression against scikit-learn's, chunk by chunk."""

import json
import math
import queue
from fractions import Fraction

import numpy as np
import pytest
import torch
from alcore_metrics import RegressionMetrology
from alcore_testing import rows_at_once
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import max_error, mean_absolute_error, r2_score, root_mean_squared_error

from alcore import AlcoreError, DataInfo, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.store import Run


class Judged(TensorPool):
    """All of the pool is measured on."""

    def evaluation(self):
        return self._inputs, self._targets


def make_driver(metrology, pool, *, folder="not-made", steps=1, val=None, **options):
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu",
            dtype=torch.float64,
        ),
        torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(pool, max_training_epochs=0, val_datapool=val),
        **options,
    )  # fmt: skip


def measure(outputs, targets, *, metrology=None, **options):
    """The record for these outputs, which the learner passes through."""
    metrology = metrology or RegressionMetrology()
    pool = Judged(outputs, targets, labeled=[0], info=DataInfo("regression"))
    make_driver(metrology, pool, **options)
    metrology.check()
    metrology.compute()
    return metrology.records[-1]


values = st.floats(-1e3, 1e3).map(lambda value: round(value, 6))


@st.composite
def cases(draw):
    size, quantities = draw(st.integers(2, 40)), draw(st.integers(0, 3))
    shape = (size, quantities) if quantities else (size,)
    count = size * max(quantities, 1)
    arrays = [
        np.array(draw(st.lists(values, min_size=count, max_size=count))).reshape(shape) + shift
        for shift in (0, draw(st.sampled_from([0, 1e6])))
    ]
    return arrays[0] + arrays[1].mean(axis=0), arrays[1]


def exact_r2(predicted, true):
    """R2 of one quantity in exact arithmetic."""
    predicted, true = ([Fraction(float(value)) for value in column] for column in (predicted, true))
    mean = sum(true) / len(true)
    error = sum((a - b) ** 2 for a, b in zip(predicted, true, strict=True))
    spread = sum((value - mean) ** 2 for value in true)
    return float(1 - error / spread) if spread else float(error == 0)


def mean_correlation(columns):
    """The mean of SciPy's over the quantities for which it is defined."""
    correlations = [spearmanr(*column).statistic for column in columns if all(np.ptp(side) > 0 for side in column)]
    return sum(correlations) / len(correlations) if correlations else math.nan


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from([1, 7, 4096]))
def test_figures_are_those_of_scikit_learn(case, rows):
    predicted, true = case
    with rows_at_once(rows):
        record = measure(torch.from_numpy(predicted), torch.from_numpy(true))
    assert record["rmse"] == pytest.approx(root_mean_squared_error(true, predicted), rel=1e-12)
    assert record["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=1e-12)
    columns = list(zip(predicted.reshape(len(true), -1).T, true.reshape(len(true), -1).T, strict=True))
    assert record["r2"] == pytest.approx(
        sum(exact_r2(*column) for column in columns) / len(columns), rel=1e-9, abs=1e-9
    )
    if all(np.ptp(one) > 1 for _, one in columns):  # of nearly equal targets scikit-learn keeps rounding errors
        assert record["r2"] == pytest.approx(r2_score(true, predicted), rel=1e-9, abs=1e-9)
    assert record["samples"] == len(true)
    assert record["max_error"] == pytest.approx(max(max_error(*column) for column in columns), rel=1e-12)
    assert record["spearman"] == pytest.approx(mean_correlation(columns), abs=1e-12, nan_ok=True)
    assert "nll" not in record


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9 + 0.3])
@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_equal_targets(level, rows):
    true = torch.full((10,), level, dtype=torch.float64)
    both = torch.stack([true, torch.arange(10.0, dtype=torch.float64)], dim=1)
    with rows_at_once(rows):
        assert measure(true, true)["r2"] == 1
        assert measure(true + 1, true)["r2"] == 0
        assert measure(both + torch.tensor([1.0, 0.0]), both)["r2"] == 0.5


def test_one_sample_has_no_r2(tmp_path):
    record = measure(torch.tensor([1.0]), torch.tensor([3.0]))
    assert (record["rmse"], record["mae"]) == (2, 2)
    assert math.isnan(record["r2"])


def test_rank_correlation_by_hand():
    assert measure(torch.tensor([1.0, 8, 27, 64]), torch.tensor([1.0, 2, 3, 4]))["spearman"] == pytest.approx(1)
    assert measure(torch.tensor([4.0, 3, 2, 1]), torch.tensor([1.0, 2, 3, 4]))["spearman"] == pytest.approx(-1)
    tied = measure(torch.tensor([1.0, 1, 2]), torch.tensor([1.0, 2, 3]))  # ranks 1.5, 1.5, 3 and 1, 2, 3
    assert tied["spearman"] == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert math.isnan(measure(torch.ones(3), torch.arange(3.0))["spearman"])


def test_rank_correlation_of_more_samples_than_fit_is_that_of_a_random_part():
    true = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    predicted = true + torch.randn(3000, generator=torch.Generator().manual_seed(1))
    whole = measure(predicted, true)["spearman"]
    part = measure(predicted, true, metrology=RegressionMetrology(max_scores=1000))
    assert part["spearman_samples"] == 1000
    assert part["spearman"] == pytest.approx(whole, abs=0.1)
    assert part["spearman"] != whole
    none = measure(predicted, true, metrology=RegressionMetrology(max_scores=0))
    assert not {"spearman", "spearman_samples"} & set(none)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 30),
    draws=st.integers(1, 5),
    quantities=st.integers(1, 3),
    noise=st.sampled_from([1e-6, 0.5]),
    rows=st.sampled_from([1, 7, 4096]),
    seed=st.integers(0, 2**16),
)
def test_the_likelihood_of_posterior_samples(size, draws, quantities, noise, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(size, draws, quantities, generator=generator, dtype=torch.float64)
    true = torch.randn(size, quantities, generator=generator, dtype=torch.float64)
    with rows_at_once(rows):
        record = measure(
            samples, true, metrology=RegressionMetrology(noise), inference_fn=lambda learner, x: x.transpose(0, 1)
        )
    mean, variance = samples.numpy().mean(axis=1), samples.numpy().var(axis=1) + noise
    normal = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(variance).sqrt())
    assert record["nll"] == pytest.approx(-normal.log_prob(true).mean().item(), rel=1e-9)
    assert record["rmse"] == pytest.approx(root_mean_squared_error(true.numpy(), mean), rel=1e-12)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_one_quantity_has_either_shape(shape):
    outputs, targets = torch.arange(5.0), torch.tensor([0.0, 1, 2, 3, 9])
    for column in (outputs, outputs[:, None]):
        assert measure(column, targets.reshape(shape))["mae"] == 1


def test_single_precision_is_summed_in_double():
    targets = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) + 300
    outputs = targets + 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    record = measure(outputs, targets)
    assert record["r2"] == pytest.approx(r2_score(targets.double().numpy(), outputs.double().numpy()), rel=1e-12)


@pytest.mark.parametrize("on", ["validation", "pool", "train"])
def test_records_say_what_was_measured(tmp_path, on):
    outputs, targets, info = torch.randn(6), torch.randn(6), DataInfo("regression")
    pool = (TensorPool if on == "train" else Judged)(outputs, targets, labeled=[0, 1, 2], info=info)
    val = TensorPool(outputs[3:], targets[3:], labeled=[0, 1], info=info) if on == "validation" else None
    metrology = RegressionMetrology()
    driver = make_driver(metrology, pool, folder=tmp_path, steps=2, val=val)
    driver.run()
    assert [list(record) for record in metrology.records] == [
        ["step", "train_samples", "on", "rmse", "mae", "r2", "max_error", "spearman", "samples"]
    ] * 2
    assert [record["on"] for record in metrology.records] == [on, on]
    assert metrology.records[0]["samples"] == {"validation": 2, "pool": 6, "train": 3}[on]
    assert Run(driver.log_dir).records() == {"regression_metrology": metrology.records}
    assert json.loads((driver.log_dir / "regression_metrology.json").read_text()) == metrology.records


# -- fields ------------------------------------------------------------------------------------------------------------


def fields(size, *shape, seed=0):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("given", [(4, 5), (1, 4, 5), (20,), (4, 5, 1)], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_fields_are_measured_value_by_value(given, rows):
    targets, errors = fields(7, 4, 5), fields(7, 4, 5, seed=1)
    outputs = (targets + 0.3 * errors).reshape(7, *given)
    with rows_at_once(rows):
        record = measure(outputs, targets)
    predicted, true = ((targets + 0.3 * errors).flatten(1).numpy(), targets.flatten(1).numpy())
    assert record["rmse"] == pytest.approx(root_mean_squared_error(true, predicted))
    assert record["r2"] == pytest.approx(r2_score(true, predicted))
    assert "nll" not in record


def test_posterior_samples_of_fields_have_a_likelihood():
    targets, samples = fields(7, 4, 5), fields(3, 7, 4, 5, seed=1)
    whole = measure(targets, targets, inference_fn=lambda learner, x: samples[:, : len(x)])
    flat = measure(targets.flatten(1), targets.flatten(1), inference_fn=lambda m, x: samples.flatten(2)[:, : len(x)])
    assert "spearman" not in whole  # of fields
    assert whole == {name: value for name, value in flat.items() if name != "spearman"}
    assert "nll" in whole


@pytest.mark.parametrize("given", [(5, 4), (2, 10), (4, 5, 2)], ids=str)
def test_fields_of_another_shape_are_refused(given):
    targets = fields(7, 4, 5)
    with pytest.raises(UsageError, match=r"for targets of shape \(7, 4, 5\)"):
        measure(fields(7, *given), targets)


# -- what it refuses ---------------------------------------------------------------------------------------------------


def test_classes_are_refused_before_step_0(tmp_path):
    pool = TensorPool(torch.zeros(4, 1), torch.arange(4) % 2, labeled=[0])
    driver = make_driver(RegressionMetrology(), pool, folder=tmp_path)
    with pytest.raises(UsageError, match="task of this data is classification"):
        driver.run()
    assert not driver.log_dir.exists()


def test_outputs_that_are_no_quantities(tmp_path):
    with pytest.raises(UsageError, match="inference_fn"):
        measure(torch.zeros(4, 1), torch.zeros(4), inference_fn=lambda learner, x: [x])


def test_posterior_samples_of_two_dimensions_are_refused_with_the_remedy():
    with pytest.raises(UsageError, match=r"\(3, 4\) for targets of shape \(4,\).*\(K, B, T\), with T = 1"):
        measure(torch.zeros(4, 3), torch.zeros(4), inference_fn=lambda learner, x: x.T)


def test_targets_that_are_unknown_are_refused():
    with pytest.raises(UsageError, match="a target to measure on is NaN"):
        measure(torch.zeros(4), torch.tensor([0.0, 1, torch.nan, 2]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_nan_are_an_error_that_names_the_first_sample(value):
    outputs = torch.tensor([0.0, 1, 2, value, value])
    with (
        rows_at_once(2),
        pytest.raises(AlcoreError, match=r"for 1 of 2 samples are NaN or infinite.*position 3") as error,
    ):
        measure(outputs, torch.zeros(5))
    assert error.value.exit_code == 1


@pytest.mark.parametrize(("on", "expected"), [("train", [0, 2]), ("unlabeled", [1, 3])])
def test_labeled_and_unlabeled_samples_are_measured(tmp_path, on, expected):
    outputs, true = torch.tensor([0.0, 1, 2, 3]), torch.tensor([1.0, 5, 2, -3])
    metrology = RegressionMetrology(on=on)
    make_driver(metrology, TensorPool(outputs, true, labeled=[2, 0]), folder=tmp_path).run()
    (record,) = metrology.records
    assert (record["on"], record["samples"]) == (on, 2)
    assert record["mae"] == pytest.approx(float((outputs - true)[expected].abs().mean()))


def test_metrology_without_samples_is_refused():
    empty = TensorPool(torch.zeros(0), torch.zeros(0))
    metrology = RegressionMetrology()
    make_driver(metrology, empty, val=empty)
    with pytest.raises(UsageError, match="no sample to measure on"):
        metrology.compute()


def test_parameters():
    for noise in (0, -1, math.nan, math.inf):
        with pytest.raises(UsageError, match="noise is"):
            RegressionMetrology(noise)
    with pytest.raises(UsageError, match="max_scores is -1; it must be at least 0"):
        RegressionMetrology(max_scores=-1)
