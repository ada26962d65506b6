"""What the estimates spare is never what would have been chosen."""

import functools
import queue

import numpy as np
import pytest
import torch
from alcore_uq import ClassifierUQQuery
from alcore_uq.estimates import estimate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.outputs import entropy, least_confidence, margin

MEASURES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
every_measure = pytest.mark.parametrize("measure", MEASURES)


@every_measure
@settings(deadline=None, max_examples=30)
@given(
    values=st.tuples(st.integers(1, 30), st.integers(2, 40)).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-120, 120, width=32))
    ),
    scale=st.sampled_from([1e-6, 0.1, 1.0, 1e4]),
    temperature=st.sampled_from([0.05, 1.0, 3.0]),
)
def test_an_estimate_is_as_near_as_it_says(measure, values, scale, temperature):
    outputs = torch.from_numpy(values) * scale
    rough, error = estimate(measure, outputs, temperature)
    exact = MEASURES[measure](outputs, "logits", temperature)
    assert rough.dtype == torch.float32
    assert 0 < error < 1
    assert float((rough.double() - exact).abs().max()) <= error


@every_measure
@pytest.mark.parametrize("classes", [2, 10, 300])
@pytest.mark.parametrize("spread", [1e-5, 1.0, 15.0, 60.0])
def test_error_of_an_estimate_is_small(measure, classes, spread):
    outputs = torch.randn(2000, classes, generator=torch.Generator().manual_seed(1)) * spread
    rough, error = estimate(measure, outputs, 1.0)
    assert float((rough.double() - MEASURES[measure](outputs)).abs().max()) <= error
    assert error < (0.01 if measure == "entropy" else 1e-4)


@every_measure
def test_estimate_is_nan_if_the_measure_is_nan(measure):
    outputs = torch.randn(6, 3)
    outputs[1, 2], outputs[3, 0], outputs[4] = torch.nan, torch.inf, -torch.inf
    rough, _ = estimate(measure, outputs, 1.0)
    assert torch.equal(rough.isnan(), MEASURES[measure](outputs).isnan())
    assert rough.isnan().tolist() == [False, True, False, True, True, False]


@every_measure
def test_classes_that_are_masked_out_are_no_nan(measure):
    outputs = torch.tensor([[0.5, -torch.inf, 0.25], [3.0, -torch.inf, -torch.inf], [0.1, 0.2, 0.3]])
    rough, error = estimate(measure, outputs, 1.0)
    exact = MEASURES[measure](outputs)
    assert float((rough.double() - exact).abs().max()) <= error
    torch.testing.assert_close(exact[0], MEASURES[measure](outputs[:1, [0, 2]])[0])
    assert float(exact[1]) == (-1 if measure == "margin" else pytest.approx(0, abs=1e-300))


@pytest.mark.parametrize(
    "outputs", [torch.zeros(4), torch.zeros(4, 1), torch.zeros(2, 4, 3), torch.zeros(4, 3, dtype=torch.float64)]
)
def test_other_outputs_have_no_estimate(outputs):
    assert estimate("entropy", outputs, 1.0) is None


# -- through a driver, against the whole pool scored at once in double precision ---------------------------------------


class Column(list):
    def put_many(self, items, scores=None):
        self.extend(items)


def asked(outputs, query):
    driver = Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=1, skip_training=True, device="cpu", seed=0),
        torch.nn.Identity(),
        c.StrategiesConfig(query_strategies=[query], queue_cls=queue.Queue),
        c.TrainingConfig(TensorPool(outputs, torch.arange(len(outputs)) % outputs.shape[1]), max_training_epochs=0),
    )
    column = Column()
    assert query.driver is driver
    query.sample(column)
    return column


@functools.cache
def pools():
    draw = torch.Generator().manual_seed(7)
    plain = torch.randn(40_000, 10, generator=draw) * 2
    sure = torch.randn(40_000, 10, generator=draw)
    sure[:, 3] += 25 + torch.rand(40_000, generator=draw)
    even = torch.randn(40_000, 10, generator=draw) * 1e-4
    few = torch.randn(40, 10, generator=draw)[torch.randint(0, 40, (40_000,), generator=draw)]  # many equal samples
    return {"plain": plain, "nearly certain": sure, "nearly even": even, "duplicates": few, "half": plain.half()}


@every_measure
@pytest.mark.parametrize("pool", list(pools()))
def test_the_best_hundred_are_those_of_double_precision(measure, pool):
    outputs = pools()[pool]
    exact = MEASURES[measure](outputs)
    expected = torch.sort(exact, descending=True, stable=True).indices[:100]
    assert asked(outputs, ClassifierUQQuery(100, measure)) == expected.tolist()
    if pool == "plain":  # and these of the formulas as they are written, where double precision suffices for them
        p = torch.softmax(outputs.double(), dim=1).numpy()
        two = np.sort(p, axis=1)[:, -2:]
        naive = {"entropy": -(p * np.log(p)).sum(1), "margin": two[:, 0] - two[:, 1], "least_confidence": 1 - two[:, 1]}
        assert np.argsort(-naive[measure], kind="stable")[:100].tolist() == expected.tolist()


def test_single_precision_alone_would_choose_others():
    outputs = pools()["nearly even"]
    naive = torch.special.entr(torch.softmax(outputs, dim=1)).sum(dim=1)
    expected = torch.sort(entropy(outputs), descending=True, stable=True).indices[:100]
    assert set(torch.topk(naive, 100).indices.tolist()) != set(expected.tolist())


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_temperature_changes_the_choice_as_dividing_the_logits_does(temperature):
    outputs = pools()["plain"]
    cooled = asked(outputs, ClassifierUQQuery(50, "entropy", temperature=temperature))
    assert cooled != asked(outputs, ClassifierUQQuery(50, "entropy"))
    exact = entropy(outputs.double() / temperature)
    assert cooled == torch.sort(exact, descending=True, stable=True).indices[:50].tolist()
