"""Sequences of points: spread evenly, the same for any subset of ids, and each point of a grid once."""

from __future__ import annotations

import numpy as np
import pytest
from alcore_space.sequence import MOST, Grid, Sobol
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

PINNED = [
    [0.05856803480519435, 0.931017315981155],
    [0.8328896340541915, 0.4847400336229394],
    [0.25188551277322213, 0.056627550030108775],
    [0.5965297178851843, 0.3871787466728719],
    [0.7380662461857183, 0.5201048581679767],
]
PINNED_GRID = [[0.8333333333333334, 0.875], [0.5, 0.625], [0.16666666666666666, 0.375]]


@pytest.mark.parametrize("dimensions", [1, 2, 5, 12])
def test_aligned_blocks_hold_one_point_in_each_part_of_each_variable(dimensions: int) -> None:
    sequence = Sobol(dimensions, (3, 0))
    for first in (0, 7 * 1024, MOST - 1024):
        points = sequence(np.arange(first, first + 1024))
        assert points.min() >= 0
        assert points.max() < 1
        for column in points.T:
            assert sorted((column * 1024).astype(int).tolist()) == list(range(1024))


@pytest.mark.parametrize("dimensions", [2, 6])
@pytest.mark.parametrize("first", [0, 10**6, 10**9 - 4096 - 123])
def test_points_are_as_even_as_those_of_scipy(dimensions: int, first: int) -> None:
    own = qmc.discrepancy(Sobol(dimensions, (0, 0))(np.arange(first, first + 1000)))
    others = qmc.discrepancy(qmc.Sobol(dimensions, seed=0).random(1024)[:1000])
    drawn = qmc.discrepancy(np.random.default_rng(0).random((1000, dimensions)))
    assert own < 3 * others
    assert own < drawn / 3


@given(st.lists(st.integers(0, MOST - 1), max_size=30))
@settings(deadline=None, max_examples=30)
def test_a_point_depends_on_its_id_alone(ids: list[int]) -> None:
    sequence = Sobol(3, (1, 0))
    together = sequence(np.array(ids, dtype=np.int64))
    assert together.shape == (len(ids), 3)
    for row, one in enumerate(ids):
        assert sequence(np.array([one]))[0].tolist() == together[row].tolist()


def test_points_are_pinned() -> None:
    """Labels are paid for these points: another version, machine or library must not move them."""
    ids = np.array([0, 1, 2, 1_000_003, MOST - 1])
    assert Sobol(2, (0, 0))(ids).tolist() == PINNED
    assert Sobol(2, (1, 0))(ids).tolist() != PINNED
    assert Sobol(2, (0, 1))(ids).tolist() != PINNED
    assert Grid([3, 4, 5], (0, 0)).ids(Grid([3, 4, 5], (0, 0))(np.arange(60))).tolist() == list(range(60))
    assert Grid([3, 4], (0, 0))(np.arange(3)).tolist() == PINNED_GRID


def test_a_seed_may_be_any_integer() -> None:
    assert Sobol(1, (-1, 0))(np.arange(2)).tolist() == Sobol(1, (2**64 - 1, 0))(np.arange(2)).tolist()


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_a_grid_has_each_point_once(counts: list[int], seed: int) -> None:
    grid = Grid(counts, (seed,))
    assert grid.size == np.prod(counts)
    points = grid(np.arange(grid.size))
    places = {tuple(row) for row in (points * counts).astype(int).tolist()}
    assert len(places) == grid.size
    assert all(0 <= place < count for row in places for place, count in zip(row, counts, strict=True))
    assert grid.ids(points).tolist() == list(range(grid.size))


def test_a_large_grid_stays_exact() -> None:
    grid = Grid([2**15, 2**15], (0,))
    ids = np.array([0, 1, 2**29, 2**30 - 1])
    assert grid.ids(grid(ids)).tolist() == ids.tolist()
