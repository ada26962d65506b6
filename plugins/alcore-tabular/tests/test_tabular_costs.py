"""What labels cost can stand in the file, and the first selection can be left to a start strategy."""

from __future__ import annotations

import numpy as np
import pytest
from alcore_tabular.data import table

from alcore.errors import UsageError


def test_a_column_of_costs_is_no_input(rows, write):
    priced = [[*row, "price" if not i else str(41 - i)] for i, row in enumerate(rows)]
    data = table(write(priced), "bought", cost="price")
    plain = table(write(rows, "plain.csv"), "bought")
    assert data.info == plain.info
    assert data.train.inputs(data.train.unlabeled_indices()).equal(plain.train.inputs(plain.train.unlabeled_indices()))
    costs = {data.train.cost(sample) for sample in range(data.train.total)}
    assert len(costs) == data.train.total
    assert costs < set(range(1, 41))
    assert plain.train.cost(0) is None


def test_an_array_of_costs(tmp_path):
    inputs, targets, price = np.arange(60.0).reshape(30, 2), np.arange(30) % 2, np.arange(30) / 10
    np.savez(tmp_path / "t.npz", X=inputs, y=targets, price=price)
    data = table(tmp_path / "t.npz", cost="price")
    assert data.info.features == 2
    assert all(0 <= data.train.cost(sample) < 3 for sample in range(data.train.total))
    np.savez(tmp_path / "t.npz", X=inputs, y=targets, price=price[:5])
    with pytest.raises(UsageError, match=r"array 'price' has the shape \(5,\)"):
        table(tmp_path / "t.npz", cost="price")


def test_costs_that_are_none_are_refused(rows, write):
    with pytest.raises(UsageError, match="there is no column 'prize' to be the cost"):
        table(write(rows), "bought", cost="prize")
    with pytest.raises(UsageError, match="'colour' holds categories, and a cost is a number"):
        table(write(rows), "bought", cost="colour")
    with pytest.raises(UsageError, match="'price' says what labels cost, and line 3 has '-1'"):
        table(
            write([[*row, "price" if not i else "-1" if i == 2 else "1"] for i, row in enumerate(rows)]),
            "bought",
            cost="price",
        )


def test_initial_zero_leaves_no_labels(rows, write):
    data = table(write(rows), "bought", initial=0)
    assert len(data.train) == 0
    assert data.train.total == 30
