"""What a pool knows of its samples apart from their labels."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from alcore.pools import TensorPool, inputs_by_sample, named_values, units_of


class Pair(NamedTuple):
    x: Any
    y: Any


class Shows:
    """Names values, and counts how often it is asked."""

    def __init__(self, **columns: Any) -> None:
        self.columns, self.calls = columns, 0

    def shown(self, samples: Any) -> Any:
        self.calls += 1
        return {name: [column[sample] for sample in samples] for name, column in self.columns.items()}


def test_values_are_read_in_one_call_and_numbers_are_those_of_python() -> None:
    pool = Shows(T=np.array([1.5, 2.5, 3.5]), n=torch.tensor([1, 2, 3]), name=["a", "b", None], row=np.eye(3))
    values = named_values(pool, [2, 0])
    assert pool.calls == 1
    assert list(values) == [2, 0]
    assert {name: value for name, value in values[2].items() if name != "row"} == {"T": 3.5, "n": 3, "name": None}
    assert (type(values[2]["T"]), type(values[2]["n"])) == (float, int)
    assert values[2]["row"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("pool", [None, TensorPool(torch.zeros(3, 2), torch.zeros(3)), Shows()])
def test_values_are_empty_where_none_are_named(pool: Any) -> None:
    assert named_values(pool, [1, 2]) == {}


def test_no_sample_is_asked_for_in_vain() -> None:
    pool = Shows(T=[1.0])
    assert named_values(pool, []) == {}
    assert pool.calls == 0
    assert inputs_by_sample(pool, []) == {}


@pytest.mark.parametrize("kind", ["tensor", "mapping", "pair"])
def test_inputs_are_read_in_one_call_in_their_nesting(kind: str) -> None:
    x, y = torch.arange(8.0).reshape(4, 2), torch.arange(4)
    inputs = {"tensor": x, "mapping": {"x": x, "y": (y, x)}, "pair": Pair(x, y)}[kind]
    pool = TensorPool(x, torch.zeros(4))
    calls = []
    pool.inputs = lambda ids: calls.append(ids.tolist()) or inputs  # type: ignore[method-assign,func-returns-value]
    by_sample = inputs_by_sample(pool, [3, 1, 2, 0])
    assert calls == [[3, 1, 2, 0]]
    first = by_sample[3]
    match kind:
        case "tensor":
            assert first.tolist() == [0.0, 1.0]
        case "mapping":
            assert (first["x"].tolist(), int(first["y"][0]), first["y"][1].tolist()) == ([0, 1], 0, [0, 1])
        case "pair":
            assert (type(first), first.x.tolist(), int(first.y)) == (Pair, [0, 1], 0)


def test_inputs_are_empty_where_the_pool_gives_none() -> None:
    assert inputs_by_sample(None, [1]) == {}
    assert inputs_by_sample([(torch.zeros(2), 0)], [0]) == {}


def test_units_are_those_that_the_pool_knows() -> None:
    pool = Shows(T=[1.0])
    assert units_of(None) == units_of(pool) == {}
    pool.units = {"T": "K", "phi": ""}  # type: ignore[attr-defined]
    assert units_of(pool) == {"T": "K"}
