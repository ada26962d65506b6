"""Targets: classes or values, and the names of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alcore_tabular import table

from alcore.errors import UsageError


def with_target(rows, values):
    return [rows[0], *([*row[:2], str(value)] for row, value in zip(rows[1:], values, strict=True))]


def load(rows, write, values, **options):
    return table(write(with_target(rows, values)), target="bought", **options)


def targets_of(pool) -> torch.Tensor:
    return torch.stack([pool.answer(place)[1] for place in range(pool.total)])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a"] * 20, ("a", "b")),
        ([10, 9, 2, 9] * 10, ("2", "9", "10")),
        (["1.0", "0", "1", "0.0"] * 10, ("0", "1")),
        ([-1, 1] * 20, ("-1", "1")),
        (["True", "False"] * 20, ("False", "True")),
        (["1", "2", "3+", "3+"] * 10, ("1", "2", "3+")),
        (["9007199254740993", "9007199254740992"] * 20, ("9007199254740992", "9007199254740993")),
    ],
)
def test_classes_are_named_and_sorted(rows, write, values, names) -> None:
    data = load(rows, write, values)
    assert data.info.task == "classification"
    assert (data.info.classes, data.info.names) == (len(names), names)
    share = [sum(_same(value, name) for value in values) for name in names]
    counted = torch.bincount(torch.cat([targets_of(data.train), targets_of(data.val)]))
    assert counted.tolist() == share


def _same(value, name) -> bool:
    return str(value).removesuffix(".0") == name


@pytest.mark.parametrize(
    "values",
    [[place / 7 for place in range(40)], [place % 14 for place in range(40)], [0.5, 1.5] * 20],
    ids=["fractions", "14 whole numbers in 40 rows", "two fractions"],
)
def test_other_numbers_are_values_in_their_units(rows, write, values) -> None:
    data = load(rows, write, values)
    assert (data.info.task, data.info.classes, data.info.names) == ("regression", 0, ())
    targets = torch.cat([targets_of(data.train), targets_of(data.val)])
    assert targets.dtype == torch.float32
    np.testing.assert_array_equal(np.sort(targets.numpy()), np.sort(np.float32(values)))


def test_the_task_can_be_said(rows, write) -> None:
    assert load(rows, write, [0, 1] * 20, task="regression").info.task == "regression"
    data = load(rows, write, [0.5, 1.5, 0.5, 2.5] * 10, task="classification")
    assert data.info.names == ("0.5", "1.5", "2.5")
    assert load(rows, write, ["0"] * 36 + ["1", "1", "2+", "2+"], task="classification").info.classes == 3


@pytest.mark.parametrize(
    ("values", "options", "fragments"),
    [
        (["a"] * 40, {}, ["'a' in every row"]),
        ([2.5] * 40, {}, ["2.5 in every row"]),
        (["a"] * 39 + ["b"], {}, ["1 of its 2 classes has a single member: 'b'", "line 41"]),
        ([f"n{place}" for place in range(40)], {}, ["40 of its 40 classes", "ids or free text"]),
        (
            [place / 7 for place in range(40)],
            {"task": "classification"},
            ["single member", "--set data.csv.task=regression"],
        ),
        ([f"{place},5" for place in range(40)], {}, ["'0,5' is a number, write it with a point"]),
        (["1", "2", "3", "x"] * 2 + ["1", "2", "3", "4"] * 8, {}, ["line 5 has 'x'", "task=classification"]),
        (["a", "b"] * 20, {"task": "regression"}, ["text where numbers belong", "line 2 has 'a'"]),
        ([place / 7 for place in range(39)] + ["inf"], {}, ["line 41 has 'inf'"]),
        ([place / 7 for place in range(39)] + ["1e39"], {}, ["line 41 has '1e39'", "float32"]),
    ],
)
def test_targets_that_can_not_be_learned_are_refused(rows, write, values, options, fragments) -> None:
    with pytest.raises(UsageError) as caught:
        load(rows, write, values, **options)
    for fragment in ["t.csv: column 'bought'", *fragments]:
        assert fragment in str(caught.value)
