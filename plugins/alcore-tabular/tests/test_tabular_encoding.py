"""Features: standardized and one-hot, learned from the training part alone."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import torch
from alcore_tabular import TableWarning, table
from alcore_tabular.encoding import _moments
from alcore_tabular.raw_table import RawTable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

N = 24
FINITE = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-3)


def write_numbers(tmp_path_factory, values: np.ndarray):
    """One row a sample; the target tells which row it was."""
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(f"x{j}" for j in range(values.shape[1])), "y"])
        writer.writerows([*map(repr, map(float, row)), i + 0.5] for i, row in enumerate(values))
    return path


def rows_of(pool) -> np.ndarray:
    return np.array([pool.answer(i)[1].item() for i in range(pool.total)]) - 0.5


def inputs_of(pool) -> np.ndarray:
    return pool.inputs(torch.arange(pool.total)).numpy()


@settings(max_examples=40, deadline=None)
@given(values=hnp.arrays(np.float64, (N, 2), elements=FINITE), seed=st.integers(0, 3))
def test_numbers_are_standardized_as_the_textbook_says(tmp_path_factory, values, seed) -> None:
    values[:2] = [[-3, 5], [4, -6]]  # some spread wherever these rows land
    values[2:12] = np.arange(20).reshape(10, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        data = table(write_numbers(tmp_path_factory, values), target="y", seed=seed)
    train, held = rows_of(data.train).astype(int), rows_of(data.val).astype(int)
    assert sorted([*train, *held]) == list(range(N))
    assert list(train) == sorted(train), "the order of the file is kept"
    for pool, where in ((data.train, train), (data.val, held)):
        expected = (values[where] - values[train].mean(axis=0)) / values[train].std(axis=0)
        np.testing.assert_allclose(inputs_of(pool), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(noise=hnp.arrays(np.float64, (N, 2), elements=FINITE), gap=st.booleans())
def test_encoding_does_not_depend_on_held_out_rows(tmp_path_factory, noise, gap) -> None:
    values = np.random.default_rng(0).normal(size=(N, 2))
    if gap:
        values[:, 1] = np.where(np.arange(N) % 5 == 0, np.nan, values[:, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TableWarning)
        before = table(write_numbers(tmp_path_factory, values), target="y", missing="fill")
        held = rows_of(before.val).astype(int)
        values[held] = noise[held] + 1e3  # never what it was
        after = table(write_numbers(tmp_path_factory, values), target="y", missing="fill")
    assert list(rows_of(after.val)) == list(held)
    np.testing.assert_array_equal(inputs_of(after.train), inputs_of(before.train))
    assert not np.array_equal(inputs_of(after.val), inputs_of(before.val))
    assert after.train.labeled_ids.tolist() == before.train.labeled_ids.tolist()


def test_categories_become_one_feature_each(rows, write) -> None:
    for place, row in enumerate(rows[1:]):
        row[2] = f"{place + 0.5}"
    data = table(write(rows), target="bought", seed=1)
    for pool in (data.train, data.val):
        for place, origin in enumerate(rows_of(pool).astype(int)):
            colour = rows[origin + 1][1]
            assert inputs_of(pool)[place, 1:].tolist() == [float(colour == c) for c in ("blue", "green", "red")]


def test_numbers_are_categories_on_request(rows, write) -> None:
    for place, row in enumerate(rows[1:]):
        row[0] = str(place % 4)
    path = write(rows)
    assert table(path, target="bought").info.features == 1 + 3
    assert table(path, target="bought", categories=("size",)).info.features == 4 + 3


def test_a_category_that_only_the_held_out_part_has_counts_as_none(rows, write) -> None:
    for place, row in enumerate(rows[1:]):
        row[2] = f"{place + 0.5}"
    held = rows_of(table(write(rows), target="bought").val).astype(int)
    rows[held[0] + 1][1] = "teal"
    with pytest.warns(TableWarning, match=r"'colour' .* 1 of the 10 held-out rows, for instance 'teal'"):
        data = table(write(rows), target="bought")
    assert inputs_of(data.val)[0, 1:].tolist() == [0, 0, 0]


def test_gaps_are_filled_with_the_median_of_the_training_part(rows, write) -> None:
    for place, row in enumerate(rows[1:]):
        row[2] = f"{place + 0.5}"
    first = table(write(rows), target="bought")
    train, held = rows_of(first.train).astype(int), rows_of(first.val).astype(int)
    for place in (train[0], train[1], held[0]):
        rows[place + 1][0] = "?"
    rows[train[2] + 1][1] = "NaN"
    rows[held[1] + 1][1] = ""
    with pytest.warns(TableWarning, match="5 missing values in 'size', 'colour'"):
        data = table(write(rows), target="bought", missing="fill")
    sizes = np.array([float(rows[place + 1][0]) for place in train[2:]])
    filled = np.array([np.median(sizes)] * 2 + sizes.tolist())
    expected = (filled - filled.mean()) / filled.std()
    np.testing.assert_allclose(inputs_of(data.train)[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert inputs_of(data.val)[0, 0] == inputs_of(data.train)[0, 0]
    assert inputs_of(data.train)[2, 1:].tolist() == [1, 0, 0, 0], "a category of its own, '(missing)'"
    assert inputs_of(data.val)[1, 1:].tolist() == [1, 0, 0, 0]


def test_rows_with_gaps_are_left_out_on_request(rows, write) -> None:
    rows[3][0], rows[9][2], rows[9][1] = "na", "NULL", "none"
    with pytest.warns(TableWarning, match="2 of 40 rows"):
        data = table(write(rows), target="bought", missing="drop")
    assert data.train.total + data.val.total == 38


def test_blanks_are_the_missing_values(rows, write) -> None:
    rows[3][1], rows[4][1] = "none", "none"
    assert table(write(rows), target="bought", blanks=("",)).info.features == 1 + 4


def test_columns_without_spread_are_left_out_with_a_warning(rows, write) -> None:
    rows = [["k", "only", *rows[0]], *(["7", "same", *row] for row in rows[1:])]
    with pytest.warns(TableWarning, match="2 columns 'k', 'only' have one value"):
        data = table(write(rows), target="bought")
    assert data.info.features == 1 + 3


def test_a_column_that_counts_the_rows_is_suspect(rows, write) -> None:
    rows = [["id", *rows[0]], *([str(place + 1), *row] for place, row in enumerate(rows[1:]))]
    with pytest.warns(TableWarning, match=r"'id' only counts the rows, from 1 .*drop=\[\"id\"\]"):
        table(write(rows), target="bought")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table(write(rows), target="bought", drop=("id",)).info.features == 4


def test_decimal_commas(tmp_path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{place**2},5;{place % 7},25;{'ab'[place % 2]}" for place in range(40)]
    path.write_text("\n".join(["x;z;y", *lines]))
    data = table(path, target="y", decimal=",")
    assert data.info.features == 2
    assert len(np.unique(inputs_of(data.train)[:, 1])) == 7


def test_all_features_are_finite_float32_and_targets_int64(rows, write) -> None:
    data = table(write(rows), target="bought")
    inputs, targets = data.train.batch(torch.arange(len(data.train)))
    assert (inputs.dtype, targets.dtype, targets.shape) == (torch.float32, torch.int64, (len(data.train),))
    assert bool(torch.isfinite(inputs).all())


@pytest.mark.parametrize("width", [1, 63, 64, 65, 130])
def test_moments_are_those_of_each_column_by_itself(width) -> None:
    numbers = np.random.default_rng(0).normal(3, 50, (37, width)).astype(np.float32)
    numbers[:, ::5] = 2.0
    numbers[::7, ::3] = np.nan
    table = RawTable(
        "t.csv", numbers, [f"c{i}" for i in range(width)], np.empty((37, 0), dtype=object), [], ["0"] * 37, "y",
        np.arange(37), lambda row, name: "",
    )  # fmt: skip
    center, scale, fill, constant = _moments(table)
    for place in range(width):
        column = numbers[:, place].astype(np.float64)
        present = column[~np.isnan(column)]
        filled = np.where(np.isnan(column), np.median(present), column)
        assert (center[place], scale[place]) == (filled.mean(), filled.std())
        assert fill[place] == (np.median(present) if np.isnan(column).any() else 0)
        assert constant[place] == (filled.min() == filled.max())


def test_pools_know_the_categories_of_their_samples(rows, write):
    data = table(write(rows), "bought")
    pools = [(data.train, data.train.total), (data.val, len(data.val))]
    seen = []
    for pool, total in pools:
        assert list(pool.columns) == ["colour"]
        inputs = pool.inputs(torch.arange(total))
        for colour, row in zip(pool.columns["colour"], inputs[:, 1:], strict=True):
            assert ["blue", "green", "red"][int(row.argmax())] == colour
            seen.append(colour)
    assert sorted(seen) == sorted(row[1] for row in rows[1:])
