"""Likelihood, CRPS, coverage and width against scipy's normal distribution and an integral."""

import math
import queue

import numpy as np
import pytest
import torch
from alcore_metrics import RegressionMetrology, UncertaintyMetrology
from alcore_metrics.uncertainty import gaussian_crps
from alcore_testing import rows_at_once
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from alcore import AlcoreError, DataInfo, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.outputs import MCDropout


class Judged(TensorPool):
    """All of the pool is measured on."""

    def evaluation(self):
        return self._inputs, self._targets


class Passes(torch.nn.Module):
    """Returns what it is given."""

    def __init__(self, kind):
        super().__init__()
        self.outputs = kind

    def forward(self, inputs):
        return inputs


def measure(outputs, targets, metrology=None, *, learner=None, kind="mean-variance", **options):
    """The record for these outputs, which the learner passes through; posterior samples are given as (B, K, T)."""
    metrology = metrology or UncertaintyMetrology()
    pool = Judged(outputs, targets, labeled=[0], info=DataInfo("regression"))
    Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=1, skip_training=True, root_log_dir="not-made", device="cpu",
            dtype=torch.float64, seed=0,
        ),
        learner or Passes(kind),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(pool, max_training_epochs=0),
        **options,
    )  # fmt: skip
    metrology.check()
    metrology.compute()
    return metrology.records[-1]


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 40), quantities=st.integers(1, 3), level=st.sampled_from([0.5, 0.9]), seed=st.integers(0, 99)
)
def test_figures_are_those_of_a_normal_distribution(size, quantities, level, seed):
    draw = np.random.default_rng(seed)
    mean, true = draw.normal(size=(2, size, quantities))
    variance = draw.uniform(0.1, 4, size=(size, quantities))
    given_as = torch.from_numpy(np.concatenate([mean, variance], axis=1))
    with rows_at_once(7):
        record = measure(given_as, torch.from_numpy(true), UncertaintyMetrology(level=level))
    distribution = norm(mean, np.sqrt(variance))
    low, high = distribution.interval(level)
    assert record["nll"] == pytest.approx(-distribution.logpdf(true).mean())
    assert record["coverage"] == pytest.approx(((low <= true) & (true <= high)).mean())
    assert record["width"] == pytest.approx((high - low).mean())
    assert (record["level"], record["samples"], record["on"]) == (level, size, "pool")


@pytest.mark.parametrize("z", [-3.0, -0.4, 0.0, 1.7])
def test_crps_is_the_integral_that_defines_it(z):
    """The squared distance between the distribution function and the step at the target."""
    scale = 2.5
    below = quad(lambda x: norm.cdf(x / scale) ** 2, -60, z * scale)[0]
    above = quad(lambda x: norm.sf(x / scale) ** 2, z * scale, 60)[0]
    crps = gaussian_crps(torch.tensor(z, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
    assert float(crps) == pytest.approx(below + above, rel=1e-6)


def swapped(model, inputs):
    return model(inputs).movedim(1, 0)


def test_posterior_samples_are_a_mixture():
    draw = torch.Generator().manual_seed(0)
    outputs = torch.rand(9, 4, 2, generator=draw, dtype=torch.float64) + 0.2
    true = torch.rand(9, generator=draw, dtype=torch.float64)
    record = measure(outputs, true, inference_fn=swapped)
    means, variances = outputs[..., 0].numpy(), outputs[..., 1].numpy()
    deviation = np.sqrt(variances.mean(axis=1) + means.var(axis=1))
    assert record["nll"] == pytest.approx(-norm(means.mean(axis=1), deviation).logpdf(true.numpy()).mean())
    values = measure(outputs, true[:, None].expand(9, 2), UncertaintyMetrology(noise=0.3), kind="values",
                     inference_fn=swapped)  # fmt: skip
    spread = np.sqrt(outputs.numpy().var(axis=1) + 0.3)
    expected = -norm(outputs.numpy().mean(axis=1), spread).logpdf(true.numpy()[:, None]).mean()
    assert values["nll"] == pytest.approx(expected)
    both = measure(outputs, true, RegressionMetrology(), inference_fn=swapped)
    assert both["nll"] == pytest.approx(record["nll"])
    assert both["rmse"] == pytest.approx(np.sqrt(((means.mean(axis=1) - true.numpy()) ** 2).mean()))


def test_dropout_gives_samples_of_the_same_models_in_each_batch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)).double()
    inputs = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metrology = UncertaintyMetrology(draws=6, noise=0.1)
    with rows_at_once(5):
        record = measure(inputs, inputs[:, 0], metrology, learner=learner)
    learner.eval()
    with torch.no_grad():
        samples = MCDropout(learner, 6, metrology.generator("dropout").initial_seed())(lambda: learner(inputs))[:, :, 0]
    deviation = (samples.var(dim=0, correction=0) + 0.1).sqrt()
    assert record["nll"] == pytest.approx(-norm(samples.mean(dim=0), deviation).logpdf(inputs[:, 0]).mean())


def test_fields_are_measured_value_by_value():
    draw = torch.Generator().manual_seed(0)
    outputs = torch.rand(5, 4, 3, 2, generator=draw, dtype=torch.float64) + 0.2
    true = torch.rand(5, 2, 3, 2, generator=draw, dtype=torch.float64)
    expected = -norm(outputs[:, :2], outputs[:, 2:].sqrt()).logpdf(true).mean()
    assert measure(outputs, true)["nll"] == pytest.approx(expected)


def test_what_cant_be_measured_is_refused():
    ones = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(AlcoreError, match=r"a predicted variance is not a finite number above 0 \(the least is -1\)"):
        measure(torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=torch.float64), ones[:2, 0])
    with pytest.raises(AlcoreError, match="NaN or infinite"):
        measure(torch.tensor([[0.0, 1.0], [math.nan, 1.0]], dtype=torch.float64), ones[:2, 0])
    with pytest.raises(UsageError, match="without a variance"):
        measure(ones, ones, kind="values")
    with pytest.raises(UsageError, match="targets of shape"):
        measure(ones, torch.ones(4, 3, dtype=torch.float64))
    with pytest.raises(UsageError, match="level is 90"):
        UncertaintyMetrology(level=90)
    with pytest.raises(UsageError, match="noise is 0"):
        UncertaintyMetrology(noise=0)
    with pytest.raises(UsageError, match="draws is 1"):
        UncertaintyMetrology(draws=1)
