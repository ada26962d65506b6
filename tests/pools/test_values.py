"""Whether a value can be a label of some data, or an input that is generated for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from alcore.pools.values import class_code, input_fault, not_finite, value_fault
from alcore.protocols import DataInfo

NAMED = DataInfo("classification", 2, names=("ham", "spam"))


@pytest.mark.parametrize(
    ("value", "info", "code"),
    [
        ("spam", NAMED, 1), ("x", NAMED, "x"), (1.0, NAMED, 1), (0.5, NAMED, 0.5), (np.float64(1), NAMED, 1),
        ("spam", DataInfo("regression"), "spam"), (1.0, DataInfo("regression"), 1.0), (1.0, None, 1.0),
    ],
)  # fmt: skip
def test_code_of_a_class(value: Any, info: DataInfo | None, code: Any) -> None:
    result = class_code(value, info)
    assert (result, type(result)) == (code, type(code))


@pytest.mark.parametrize("value", [0, 1, True, np.int8(1), torch.tensor([0, 1, 1]), [[0], [1]]])
def test_codes_of_classes_are_right(value: Any) -> None:
    assert value_fault(value, NAMED) is None


@pytest.mark.parametrize("value", [object(), "any", {"a": 1}, 0.5, 7])
def test_any_value_is_right_where_nothing_is_known_about_the_data(value: Any) -> None:
    assert value_fault(value, None) is None


@pytest.mark.parametrize("value", [0, 1.5, 1j, np.ones(3), [[1.0, 2.0]]])
def test_any_number_is_right_in_regression(value: Any) -> None:
    assert value_fault(value, DataInfo("regression")) is None


@pytest.mark.parametrize("value", [None, math.nan, np.array([1, np.inf]), torch.tensor(math.nan), [{"a": (math.nan,)}]])
def test_none_nan_and_infinity_are_wrong_in_any_data(value: Any) -> None:
    for info in (None, NAMED, DataInfo("regression")):
        assert value_fault(value, info)


@pytest.mark.parametrize("value", [complex(math.nan, 1), complex(1, math.inf), torch.tensor(complex(0, math.nan))])
def test_complex_value_is_finite_if_both_parts_are(value: Any) -> None:
    assert not_finite(value)
    assert not not_finite(1 + 1j)


TENSOR = torch.zeros(2)


@pytest.mark.parametrize(
    ("item", "example"),
    [
        (np.ones(2), TENSOR), (torch.ones(3), TENSOR), ({"b": TENSOR, "a": "x"}, {"a": "y", "b": TENSOR}),
        ((TENSOR, 1), (TENSOR, 2)), ([TENSOR], (TENSOR,)), ("text", "other"),
    ],
)  # fmt: skip
def test_input_like_those_of_the_pool_is_right(item: Any, example: Any) -> None:
    assert input_fault(item, example) is None


@pytest.mark.parametrize(
    ("item", "example", "fault"),
    [
        (20.5, TENSOR, "a float, and inputs are tensors or arrays of shape (2,)"),
        (True, TENSOR, "a bool, and inputs are"),
        ("20", TENSOR, "a str, and inputs are"),
        ([20, 21], TENSOR, "a list, and inputs are"),
        (torch.zeros(1, 2), TENSOR, "of shape (1, 2), and inputs have shape (2,)"),
        ({"a": 1}, {"a": 1, "b": 2}, "not a mapping with the keys a, b"),
        ({"a": 1, "b": "x"}, {"a": 1, "b": 2}, "a str, and inputs are of type int"),
        ((TENSOR,), (TENSOR, TENSOR), "not a sequence of 2"),
        (5.0, "text", "a float, and inputs are of type str"),
    ],
)
def test_input_unlike_those_of_the_pool_is_told_how_it_differs(item: Any, example: Any, fault: str) -> None:
    assert fault in str(input_fault(item, example))


@pytest.mark.parametrize("task", [None, "classification", "regression"])
@pytest.mark.parametrize("classes", [0, 1, 3])
@pytest.mark.parametrize("value", [-(2**63), -1, 0, 1, 2, 3, 300, 2**31, 2**63 - 1])
def test_whole_number_is_judged_as_the_same_number_in_a_tensor_is(value: int, classes: int, task: Any) -> None:
    info = None if task is None else DataInfo(task=task, classes=classes)
    assert value_fault(value, info) == value_fault(torch.tensor(value), info)
