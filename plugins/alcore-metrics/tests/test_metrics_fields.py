"""Relative errors of fields by hand and by plain loops."""

import math
import queue

import numpy as np
import pytest
import torch
from alcore_metrics import FieldsMetrology
from alcore_testing import rows_at_once

from alcore import AlcoreError, DataInfo, Driver, TensorPool, UsageError
from alcore import config as c

FIGURES = ("relative_l2", "p95_relative_l2")


class Judged(TensorPool):
    """All of the pool is measured on."""

    def evaluation(self):
        return self._inputs, self._targets


def measure(outputs, targets, *, inference_fn=None, **parameters):
    """The record for these outputs, which the learner passes through."""
    metrology = FieldsMetrology(**parameters)
    make_driver(metrology, outputs, targets, inference_fn=inference_fn)
    metrology.check()
    metrology.compute()
    return metrology.records[-1]


def make_driver(metrology, outputs, targets, *, inference_fn=None):
    return Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=1, device="cpu", dtype=torch.float64),
        torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(Judged(outputs, targets, labeled=[0], info=DataInfo("regression")), max_training_epochs=0),
        inference_fn=inference_fn,
    )


def fields(size, *shape, seed=0):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    targets = torch.tensor([[[3.0, 4]], [[0, 2]], [[1, 0]]])  # norms 5, 2 and 1
    outputs = torch.tensor([[[3.0, 5]], [[1, 2]], [[1, 0]]])  # errors 1, 1 and 0
    record = measure(outputs, targets)
    assert record["relative_l2"] == pytest.approx((1 / 5 + 1 / 2) / 3)
    assert record["p95_relative_l2"] == 1 / 2
    assert record["samples"] == 3
    assert "per_channel" not in record


@pytest.mark.parametrize(("size", "place"), [(1, 0), (19, 18), (20, 18), (21, 19), (40, 37), (100, 94)])
def test_the_95th_percentile_is_the_smallest_error_that_so_many_samples_do_not_exceed(size, place):
    targets = torch.ones(size, 1, 2, dtype=torch.float64)
    errors = torch.arange(size, dtype=torch.float64)[torch.randperm(size, generator=torch.Generator().manual_seed(0))]
    record = measure(targets + errors[:, None, None], targets)
    assert record["p95_relative_l2"] == pytest.approx(place)
    assert (errors <= place).double().mean() >= 0.95
    assert (errors <= place - 1).double().mean() < 0.95


@pytest.mark.parametrize("rows", [1, 3, 4096])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 7), (3, 2, 2, 2)], ids=str)
def test_channels_are_measured_by_themselves(shape, rows):
    targets = fields(7, *shape)
    outputs = targets + 0.3 * fields(7, *shape, seed=1)
    given = outputs if len(shape) > 2 else outputs[:, :, :, None]  # three axes would be posterior samples elsewhere
    with rows_at_once(rows):
        record = measure(given, targets, channels=["u", "v", "p"])
    assert [entry["channel"] for entry in record["per_channel"]] == ["u", "v", "p"]
    for place, one in enumerate(record["per_channel"]):
        alone = measure(given[:, place : place + 1], targets[:, place : place + 1])
        assert one == {"channel": one["channel"]} | {n: pytest.approx(alone[n]) for n in one if n != "channel"}
    norm = [float((f - y).norm() / y.norm()) for f, y in zip(outputs, targets, strict=True)]
    assert record["relative_l2"] == pytest.approx(np.mean(norm))
    assert record["p95_relative_l2"] == pytest.approx(max(norm))


def test_channels_have_numbers_without_names():
    targets = fields(4, 2, 3, 3)
    assert [entry["channel"] for entry in measure(targets, targets)["per_channel"]] == ["0", "1"]


@pytest.mark.parametrize("given", [fields(3, 7, 2, 4, 5, seed=1), fields(3, 7, 40, seed=1)], ids=["axes", "one axis"])
def test_posterior_samples_of_fields_count_by_their_mean(given):
    targets, samples = fields(7, 2, 4, 5), given.reshape(3, 7, 2, 4, 5)
    record = measure(targets, targets, inference_fn=lambda learner, x: given[:, : len(x)])
    mean = measure(samples.mean(dim=0), targets)
    for one, other in zip([record, *record["per_channel"]], [mean, *mean["per_channel"]], strict=True):
        assert [one[name] for name in FIGURES] == pytest.approx([other[name] for name in FIGURES])


def test_fields_that_are_0_are_left_out_and_counted():
    targets = torch.tensor([[[3.0, 4], [1, 1]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]])
    record = measure(targets + torch.tensor([1.0, 0]), targets)
    assert record["zero_fields"] == 1
    assert record["relative_l2"] == pytest.approx((math.sqrt(2 / 27) + math.sqrt(2)) / 2)
    assert [entry["relative_l2"] for entry in record["per_channel"]] == pytest.approx(
        [1 / 5, (1 / math.sqrt(2) + 1) / 2]
    )
    none = measure(torch.ones(2, 1, 3), torch.zeros(2, 1, 3))
    assert math.isnan(none["relative_l2"])
    assert math.isnan(none["p95_relative_l2"])
    assert none["zero_fields"] == 2


def test_values_of_each_sample_are_a_field_without_channels():
    record = measure(torch.tensor([[3.0, 5], [0, 3]]), torch.tensor([[3.0, 4], [0, 2]]))
    assert record["relative_l2"] == pytest.approx((1 / 5 + 1 / 2) / 2)
    assert "per_channel" not in record


def test_bad_values_are_refused():
    targets = fields(5, 1, 2, 2)
    metrology = FieldsMetrology(channels=["u", "v"])
    make_driver(metrology, targets, targets)
    for refused in (metrology.check, metrology.compute):
        with pytest.raises(UsageError, match="2 names of channels for 1 channels"):
            refused()
    with pytest.raises(UsageError, match=r"give a list of names, \['u'\]"):
        FieldsMetrology(channels="u")
    broken = targets.clone()
    broken[3, 0, 1, 1] = torch.inf
    with rows_at_once(2), pytest.raises(AlcoreError, match=r"for 1 of 2 samples are NaN or infinite.*position 3"):
        measure(broken, targets)
    with pytest.raises(UsageError, match="a target to measure on is NaN"):
        measure(targets, broken)
    with pytest.raises(UsageError, match=r"for targets of shape"):
        measure(fields(5, 2, 2, 2), targets)
