"""What labels are expected to cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alcore import TensorPool
from alcore.driver.expected_costs import ExpectedCosts


class Priced:
    """A pool or a label strategy with prices."""

    def __init__(self, price: float) -> None:
        self.price = price

    def cost(self, item: Any) -> float:
        return self.price


@pytest.mark.parametrize(
    ("label", "pool", "item", "expected"),
    [
        (Priced(3), Priced(2), 7, 3.0),
        (Priced(3), Priced(2), "text", 3.0),
        (None, Priced(2), 7, 2.0),
        (object(), Priced(2), 7, 2.0),
        (None, Priced(2), "text", None),
        (None, None, 7, None),
    ],
)
def test_cost_is_that_of_the_label_strategy_else_of_the_pool_else_unknown(
    label: Any, pool: Any, item: Any, expected: float | None
) -> None:
    assert ExpectedCosts(label, pool).of(item) == expected


@pytest.mark.parametrize(
    "costs", [None, [1.0, 2.0, 3.0, 4.0], torch.tensor([1, 2, 3, 4]), lambda sample: sample + 1.0], ids=type
)
def test_costs_of_many_samples_are_those_of_each(costs: Any) -> None:
    pool = TensorPool(torch.zeros(4, 1), torch.zeros(4), labeled=[], costs=costs)
    pool_costs = ExpectedCosts(None, pool)
    each = [5.0 if pool_costs.of(sample) is None else pool_costs.of(sample) for sample in (3, 0)]
    assert pool_costs.of_samples(torch.tensor([3, 0]), 5.0).tolist() == each
    assert len(pool_costs.of_samples(torch.tensor([], dtype=torch.int64), 5.0)) == 0
    dear = ExpectedCosts(Priced(9), pool)
    assert dear.of_samples(torch.tensor([3, 0]), 5.0).tolist() == [9.0, 9.0]


def test_generated_inputs_cost_what_the_pool_says_of_inputs() -> None:
    pool = TensorPool(torch.zeros(4, 1), torch.zeros(4), labeled=[], costs=[1.0, 2.0, 3.0, 4.0])
    pool.input_cost = lambda item: None if item == "?" else 10.0 * len(item)  # type: ignore[attr-defined]
    costs = ExpectedCosts(None, pool)
    assert costs.of("ab") == 20.0
    assert costs.of_samples([3, "a", "?"], 5.0).tolist() == [4.0, 10.0, 5.0]
    assert ExpectedCosts(Priced(9), pool).of_samples([3, "a"], 5.0).tolist() == [9.0, 9.0]
    assert ExpectedCosts(None, Priced(2)).of_samples([3, "a"], 5.0).tolist() == [2.0, 5.0]


def test_driver_says_what_labels_are_expected_to_cost(build: Callable[..., Any]) -> None:
    pool = TensorPool(torch.zeros(4, 2), torch.zeros(4), labeled=[0], costs=[1.0, 2.0, 3.0, 4.0])
    driver = build(train_datapool=pool)
    assert driver.expected_costs.are_known
    assert driver.expected_costs.of(2) == 3.0
    assert driver.costs(torch.tensor([2])) is None  # query strategies are to look at scores alone
