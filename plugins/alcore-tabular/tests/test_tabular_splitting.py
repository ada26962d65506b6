"""Held-out rows and the labels at the start."""

from __future__ import annotations

import numpy as np
import pytest
from alcore_tabular import table
from alcore_tabular.splitting import count_initial, draw_few, draw_initial, first_labels, hold_out, plan_steps
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.errors import UsageError

SIZES = st.lists(st.integers(2, 30), min_size=2, max_size=6)


@settings(max_examples=200, deadline=None)
@given(sizes=SIZES, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32), data=st.data())
def test_each_class_keeps_its_share_and_is_in_every_part(sizes, share, seed, data) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    train, held = hold_out(codes, len(codes), share, rng)
    assert sorted([*train, *held]) == list(range(len(codes)))
    assert np.all(np.diff(train) > 0)
    for code, size in enumerate(sizes):
        inside = int((codes[held] == code).sum())
        assert 1 <= inside <= size - 1
        assert abs(inside - share * size) <= 1
    count = data.draw(st.integers(len(sizes), len(train)))
    first = draw_initial(codes[train], len(train), count, rng)
    assert len(set(first.tolist())) == count
    assert set(codes[train][first]) == set(range(len(sizes)))


@given(size=st.integers(2, 50), share=st.floats(0.01, 0.99))
def test_regression_splits_without_classes(size, share) -> None:
    train, held = hold_out(None, size, share, np.random.default_rng(0))
    assert sorted([*train, *held]) == list(range(size))
    assert 1 <= len(held) <= size - 1
    assert abs(len(held) - share * size) <= 1
    assert len(set(draw_initial(None, len(train), len(train), np.random.default_rng(0)))) == len(train)


@pytest.mark.parametrize(
    ("initial", "size", "classes", "count"),
    [
        (0.1, 100, 2, 10),
        (0.01, 100, 5, 5),
        (0.001, 100, 0, 1),
        (7, 100, 2, 7),
        (0, 100, 2, 0),
        (100, 100, 2, 100),
        (0.99, 3, 3, 3),
    ],
)
def test_initial_is_the_number_of_labels_at_the_start(initial, size, classes, count) -> None:
    assert count_initial(initial, size, classes) == count


@pytest.mark.parametrize(
    ("initial", "fragment"),
    [
        (31, "training part has 30"),
        (1, "initial=2"),
        (-3, "too few"),
        (5.0, "initial=5"),
        (0.0, "above 0"),
        (True, "neither"),
        (float("nan"), "above 0"),
    ],
)
def test_impossible_starts_are_refused(initial, fragment) -> None:
    with pytest.raises(UsageError, match=fragment):
        count_initial(initial, 30, 2)


def test_the_seed_decides_and_none_is_zero(rows, write) -> None:
    path = write(rows)

    def key(seed):
        data = table(path, target="bought", seed=seed, initial=5)
        return data.train.digest(), data.val.digest()

    assert key(None) == key(0) == key(0)
    assert len({key(seed) for seed in (0, 1, 2, -1, 2**63)}) == 5


@pytest.mark.parametrize("seed", range(5))
def test_every_class_of_a_table_is_labeled_at_the_start(rows, write, seed) -> None:
    for row, kind in zip(rows[1:], ["a"] * 36 + ["b", "b", "c", "c"], strict=True):
        row[2] = kind
    data = table(write(rows), target="bought", initial=3, seed=seed)
    assert sorted(data.train[place][1].item() for place in range(3)) == [0, 1, 2]
    assert {data.val[place][1].item() for place in range(len(data.val))} == {0, 1, 2}


@pytest.mark.parametrize(
    ("size", "classes", "count"),
    [(112, 3, 15), (1000, 2, 10), (1000, 0, 20), (40, 0, 10), (15, 2, 3), (15, 10, 10), (100_000, 100, 500)],
)
def test_five_a_class_or_twenty_are_labeled_where_nobody_says(size, classes, count) -> None:
    assert first_labels(size, classes) == count


def test_first_labels_are_as_many_of_each_class_or_all_of_a_rare_one() -> None:
    codes = np.array([0] * 80 + [1] * 2 + [2] * 30)
    few = draw_few(codes, len(codes), np.random.default_rng(0))
    assert np.bincount(codes[few]).tolist() == [5, 2, 5]
    assert len(set(few.tolist())) == len(few)
    assert len(set(draw_few(None, 200, np.random.default_rng(0)).tolist())) == 20


@given(size=st.integers(15, 10**6), classes=st.integers(0, 30), cold=st.booleans())
def test_steps_give_a_curve_and_never_ask_for_more_than_there_is(size, classes, cold) -> None:
    first = first_labels(size, classes)
    if first >= size:
        return
    steps, a_step = plan_steps(size, 0 if cold else first, first)
    bought = (steps - cold) * a_step
    assert steps <= 38
    assert a_step * (steps - cold - 1) < size - first, "the last step finds something to ask for"
    assert bought >= min(size - first, 3 * first)
    if size >= 1000:
        assert 20 <= steps <= 32


@pytest.mark.parametrize(("size", "first", "plan"), [(114, 15, (25, 3)), (1125, 15, (27, 9)), (37_500, 15, (25, 55))])
def test_a_small_pool_is_labeled_by_two_thirds_and_a_large_one_by_a_few_percent(size, first, plan) -> None:
    assert plan_steps(size, first, first) == plan
