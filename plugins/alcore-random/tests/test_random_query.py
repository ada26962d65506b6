"""Uniform, without replacement, and a function of run seed and step alone."""

import itertools
import queue
import random

import numpy as np
import pytest
import torch
from alcore_random import RandomQuery
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import Driver, TensorPool, UsageError
from alcore import config as c


class Asked(list):
    """Takes in what a strategy asks for, as the query queue does."""

    put_many = list.extend


def make_driver(folder, size, query, *, labeled=(0,), seed=0, steps=1, pool=None):
    if pool is None:
        pool = TensorPool(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), labeled=labeled)
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu",
            seed=seed,
        ),
        torch.nn.Identity(),
        c.StrategiesConfig(query_strategies=[query], queue_cls=queue.Queue),
        c.TrainingConfig(pool, max_training_epochs=0),
    )  # fmt: skip


def picks(size, n, *, seed=0, step=0, labeled=(0,)):
    """What the strategy asks for in one step; nothing is written to the disk."""
    query, asked = RandomQuery(n), Asked()
    make_driver("not-made", size, query, seed=seed, labeled=labeled).position.step = step
    query.sample(asked)
    return asked


def rounds(size, n, count):
    """What `count` steps of one run ask for, each from the whole pool."""
    query = RandomQuery(n)
    driver = make_driver("not-made", size, query, labeled=())
    for step in range(count):
        driver.position.step = step
        asked = Asked()
        query.sample(asked)
        yield asked


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2).sum() / expected)


# 99.9 % quantiles: a uniform strategy exceeds one for 1 seed in 1000, and this seed is fixed
CHI_SQUARE_19 = 43.82
CHI_SQUARE_29 = 58.30


def test_each_sample_has_equal_probability():
    first = np.bincount([sample for asked in rounds(20, 1, 4000) for sample in asked], minlength=20)
    assert first.sum() == 4000
    assert chi_square(first) < CHI_SQUARE_19


def test_each_sample_has_equal_probability_in_a_batch():
    counts = np.bincount([sample for asked in rounds(20, 5, 3000) for sample in asked], minlength=20)
    assert counts.sum() == 15_000
    # Drawn without replacement the counts vary less: by (1 - n/N) N/(N - 1) of what a multinomial would
    assert chi_square(counts) / ((1 - 5 / 20) * 20 / 19) < CHI_SQUARE_19


def test_each_ordered_pair_has_equal_probability():
    pairs = [6 * a + b for a, b in rounds(6, 2, 6000)]
    counts = np.bincount(pairs, minlength=36).reshape(6, 6)
    assert counts.diagonal().sum() == 0
    assert chi_square(counts[~np.eye(6, dtype=bool)]) < CHI_SQUARE_29


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 60), n=st.integers(0, 70), seed=st.integers(0, 2**63), data=st.data())
def test_unlabeled_samples_without_replacement(size, n, seed, data):
    labeled = data.draw(st.lists(st.integers(0, size - 1), unique=True))
    asked = picks(size, n, seed=seed, labeled=labeled)
    assert len(asked) == min(n, size - len(labeled))
    assert len(set(asked)) == len(asked)
    assert not set(asked) & set(labeled)
    assert set(asked) <= set(range(size))
    assert all(type(sample) is int for sample in asked)
    assert picks(size, n, seed=seed, labeled=labeled) == asked


def test_seed_and_step_decide():
    assert picks(500, 10, seed=1) == picks(500, 10, seed=1)
    assert picks(500, 10, seed=1) != picks(500, 10, seed=2)
    assert picks(500, 10, seed=1, step=0) != picks(500, 10, seed=1, step=1)


def test_the_global_generators_have_no_part_in_it():
    expected = picks(500, 10, seed=1)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert picks(500, 10, seed=1) == expected
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_smaller_request_is_the_start_of_a_larger_one():
    assert picks(300, 40, seed=4)[:7] == picks(300, 7, seed=4)


def test_the_picks_do_not_depend_on_how_the_pool_is_streamed(monkeypatch):
    expected = picks(500, 10, seed=1)
    whole = Driver.candidates
    monkeypatch.setattr(Driver, "candidates", lambda self, size=13: whole(self, size))
    assert picks(500, 10, seed=1) == expected


def test_a_run_until_the_pool_is_dry(tmp_path):
    query = RandomQuery(12)
    driver = make_driver(tmp_path, 40, query, labeled=range(10), steps=None)
    asked = []
    with driver.session():
        while driver.stop_reason is None:
            driver.active_learning_step()
            asked.append([request.sample for request in driver.query_queue.asked])
    assert list(map(len, asked)) == [12, 12, 6, 0]
    assert sorted(itertools.chain(*asked)) == list(range(10, 40))
    assert "sample left" in driver.stop_reason


def test_a_pool_that_cannot_be_chosen_from_is_refused_before_step_0(tmp_path):
    driver = make_driver(tmp_path, 3, RandomQuery(2), pool=[(torch.zeros(1), 0)])
    with pytest.raises(UsageError, match=r"random_query can't be used here: list can't be chosen from.*TensorPool"):
        driver.run()
    assert not driver.log_dir.exists()


def test_parameters():
    assert RandomQuery().max_samples == 10
    with pytest.raises(UsageError, match=r"max_samples is -1"):
        RandomQuery(-1)


def test_plugin_offers_its_parts_by_name():
    from alcore import plugins

    made = plugins.installed().make("query", "random", max_samples=3)
    assert type(made) is RandomQuery
    assert made.max_samples == 3
