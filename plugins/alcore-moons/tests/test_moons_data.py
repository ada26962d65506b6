"""The points are scikit-learn's; some of them are labeled."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from alcore_moons import MoonsPool, moons
from alcore_moons.data import two_moons
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_moons

from alcore import DataInfo, UsageError


def test_moons_defaults():
    pool = MoonsPool()
    inputs, targets = pool.evaluation()
    assert inputs.shape == (1000, 2)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert torch.bincount(targets).tolist() == [700, 300]
    assert len(pool) == 50
    assert pool.total == 1000
    assert len(pool.unlabeled_indices()) == 950
    assert pool.knows_answers
    assert pool.info == DataInfo("classification", classes=2, features=2, shape=(2,), names=("0", "1"))


@pytest.mark.parametrize(
    ("options", "counts", "noise", "seed"),
    [
        ({}, (700, 300), 0.25, 0),
        ({"samples": 200, "majority": 0.5, "noise": 0.0, "seed": 7}, (100, 100), 0.0, 7),
        ({"samples": 10, "majority": 0.9, "noise": 0.1, "seed": 2**32 + 3}, (9, 1), 0.1, 3),
    ],
)
def test_the_points_are_those_of_scikit_learn(options, counts, noise, seed):
    inputs, targets = MoonsPool(**options).evaluation()
    points, classes = make_moons(counts, noise=noise, random_state=seed)
    assert np.array_equal(inputs.numpy(), points.astype(np.float32))
    assert np.array_equal(targets.numpy(), classes)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.one_of(st.just(0.0), st.floats(1e-9, 10)), st.integers(0, 2**32 - 1))
def test_points_and_classes_are_those_of_scikit_learn_to_the_bit(upper, lower, noise, seed):
    points, classes = two_moons(upper, lower, noise, seed)
    expected, labels = make_moons((upper, lower), noise=noise, random_state=seed)
    assert (points.dtype, classes.dtype, points.tobytes()) == (np.float64, np.int64, expected.tobytes())
    assert np.array_equal(classes, labels)


def test_two_moons_are_made_without_scikit_learn_and_scipy():
    code = "import sys, alcore_moons; alcore_moons.MoonsPool(); print({'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_seed_decides_points_and_labels():
    one, same, other = MoonsPool(seed=1), MoonsPool(seed=1), MoonsPool(seed=2)
    assert one.digest() == same.digest()
    assert not torch.equal(one.evaluation()[0], other.evaluation()[0])
    assert one.labeled_ids.tolist() != other.labeled_ids.tolist()
    assert moons(seed=1).train.digest() == one.digest()
    assert moons().train.digest() == MoonsPool(seed=0).digest()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_seed_of_torch_is_a_seed_here(seed):
    assert len(MoonsPool(samples=20, seed=seed)) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(4, 200), st.floats(0.3, 0.7), st.floats(0, 1), st.integers(0, 2**32))
def test_shares_are_kept(samples, majority, initial, seed):
    pool = MoonsPool(samples, majority, 0.25, initial, seed)
    counts = torch.bincount(pool.evaluation()[1], minlength=2).tolist()
    assert counts == [round(samples * majority), samples - round(samples * majority)]
    assert len(pool) == round(samples * initial)
    assert len(pool) + len(pool.unlabeled_indices()) == samples


def test_the_labeled_ones_are_drawn_from_both_classes():
    """They are a shuffle of all points: the first 50 points of make_moons are of class 0 or 1 at random anyway."""
    shares = [float(MoonsPool(seed=seed).batch(torch.arange(50))[1].double().mean()) for seed in range(40)]
    assert abs(np.mean(shares) - 0.3) < 0.04  # three standard deviations of a mean of 2000 draws are 0.03


def test_evaluation_is_all_points_whatever_is_labeled():
    pool = MoonsPool(samples=100)
    before = pool.evaluation()
    pool.append(int(pool.unlabeled_indices()[0]))
    after = pool.evaluation()
    assert len(after[0]) == len(after[1]) == 100
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "0 samples with a majority of 0.7"),
        ({"samples": 1}, "1 samples"),
        ({"samples": -5}, "-5 samples"),
        ({"majority": 1.0}, "leave a class without points"),
        ({"majority": 0.0}, "leave a class without points"),
        ({"samples": 10, "majority": 0.99}, "leave a class without points"),
        ({"majority": 1.5}, "majority is 1.5"),
        ({"initial": 1.01}, "initial 1.01"),
        ({"initial": -0.1}, "initial -0.1"),
        ({"initial": float("nan")}, "initial nan"),
        ({"noise": -1.0}, "noise -1.0"),
        ({"noise": float("inf")}, "noise inf"),
    ],
)
def test_bad_parameters(options, words):
    with pytest.raises(UsageError, match=words):
        MoonsPool(**options)
    with pytest.raises(UsageError, match=words):
        moons(**options)


def test_factory_adds_default_settings():
    data = moons(samples=60, initial=0.5)
    assert len(data.train) == 30
    assert data.info is data.train.info
    assert data.val is None
    assert data.unlabeled is None
    assert data.defaults["driver"] == {"batch_size": 16, "max_active_learning_steps": 70, "fine_tuning_lr": 0.005}
    assert data.defaults["training"]["optimizer"] == {"cls": "SGD", "lr": 0.01}
    assert dataclasses.is_dataclass(data)


def test_plugin_offers_its_parts_by_name():
    from alcore import plugins

    assert len(plugins.installed().make("data", "moons", samples=20, initial=0.5).train) == 10
    made = plugins.installed().make("learner", "mlp", info=DataInfo(classes=2, features=3), hidden=(4,))
    assert made(torch.zeros(5, 3)).shape == (5, 1)
