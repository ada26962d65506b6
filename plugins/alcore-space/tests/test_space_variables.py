"""What values variables have, what the learner is given, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from alcore_space import Category, Integer, Log, Real, Space
from alcore_space.variables import exponential

from alcore import UsageError

EDGES = np.array([0.0, 0.25, 0.5, 1 - 2**-53])


def test_exponential_is_that_of_numpy_to_two_units_in_the_last_place() -> None:
    x = np.linspace(-690, 690, 100_001)
    assert np.abs(exponential(x) / np.exp(x) - 1).max() <= 2 * 2**-52
    assert exponential(np.zeros(1))[0] == 1


def test_values_stay_within_their_bounds() -> None:
    assert Real("x", -1, 3).values(EDGES).tolist() == pytest.approx([-1, 0, 1, 3])
    assert Log("x", 1, 10_000).values(EDGES).tolist() == pytest.approx([1, 10, 100, 10_000])
    assert Integer("x", 3, 6).values(EDGES).tolist() == [3, 4, 5, 6]
    assert Category("x", ("a", "b")).values(EDGES).tolist() == ["a", "a", "b", "b"]
    narrow = Log("x", 0.1, 0.1 + 1e-15).values(np.linspace(0, 1, 999, endpoint=False))
    assert narrow.min() >= 0.1
    assert narrow.max() <= 0.1 + 1e-15


VARIABLES = [
    Real("r", 900, 1500, "K"), Log("l", 1e-7, 1e9), Integer("i", -3, 4), Category("c", ("H2", "CH4", "NH3")),
    Category("m", (16, 32)),
]  # fmt: skip


def test_inputs_of_places_are_those_of_their_values() -> None:
    space = Space(VARIABLES)
    unit = np.random.default_rng(0).random((200, 5))
    inputs = space.scaled(unit)
    assert inputs.dtype == np.float32
    assert inputs.shape == (200, space.features) == (200, 8)
    assert inputs.min() >= 0
    assert inputs.max() <= 1
    assert np.allclose(space.inputs(space.values(unit)), inputs, atol=1e-6)


def test_the_nearest_point_of_inputs_is_the_point() -> None:
    space = Space(VARIABLES)
    unit = np.random.default_rng(1).random((50, 5))
    values = space.values(unit)
    for row, inputs in enumerate(space.scaled(unit).astype(np.float64)):
        point = space.point(inputs)
        assert space.fault(point) is None
        assert point["i"] == values["i"][row]
        assert point["c"] == values["c"][row]
        assert point["r"] == pytest.approx(values["r"][row], rel=1e-6)
        assert np.log(point["l"] / values["l"][row]) == pytest.approx(0, abs=1e-4)


def test_the_nearest_point_keeps_bounds_and_rounds() -> None:
    point = Space(VARIABLES).point([1.7, -0.2, 0.5, 0.2, 0.1, 0.3, 0.4, 0.6])
    assert point == {"r": 1500, "l": pytest.approx(1e-7), "i": 0, "c": "NH3", "m": 32}
    assert isinstance(point["i"], int)
    with pytest.raises(UsageError, match=r"shape \(2,\) are no point of this space; it has \(8,\)"):
        Space(VARIABLES).point([0, 1])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"r": 1600.0}, "r: 1600 is outside of its bounds 900 to 1500 K"),
        ({"r": float("nan")}, "r: nan is not a finite number"),
        ({"r": True}, "r: True is not a finite number"),
        ({"r": "hot"}, "r: 'hot' is not a finite number"),
        ({"i": 1.5}, "i: 1.5 is not a whole number"),
        ({"c": "CH"}, "c: 'CH' is none of its values; did you mean 'CH4'? There are: CH4, H2, NH3"),
        ({"m": 16.0}, None),
        ({"i": np.int64(2), "r": np.float32(1000)}, None),
        ({"rr": 1}, "there is no variable 'rr': did you mean 'r'? There are: c, i, l, m, r"),
    ],
)
def test_a_point_is_checked(change: dict[str, Any], fault: str | None) -> None:
    assert Space(VARIABLES).fault({"r": 1000, "l": 1.0, "i": 0, "c": "H2", "m": 32} | change) == fault


def test_a_point_has_a_value_for_each_variable() -> None:
    assert Space(VARIABLES).fault({"r": 1000}) == "the value of l is missing"
    assert "a list, and a point is a mapping" in str(Space(VARIABLES).fault([1, 2]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"low": 1500, "high": 900}, "variable T: low is 1500 and high is 900; exchange them"),
        ({"low": 2, "high": 2}, "leave the variable out, since it doesn't vary"),
        ({"low": 0}, "high is missing; give high = a number"),
        ({"low": 0, "high": "9"}, "high is '9'; it must be a finite number"),
        ({"low": 0, "high": float("inf")}, "high is inf"),
        ({"low": True, "high": 2}, "low is True"),
        ({"low": -1e308, "high": 1.7e308}, "whose difference is too large"),
        ({"low": 0, "high": 1, "unit": 5}, "unit is 5; a unit is text, such as unit = 'K'"),
        ({"low": 5, "high": 1, "unit": 5}, "a unit is text, such as unit = 'K'; and low is 5 and high is 1"),
        ({"low": 0, "hihg": 1}, "there is no 'hihg' of a variable of type real; did you mean 'high'?"),
        ({"type": "reel"}, "type is 'reel'; did you mean 'real'? There are: category, integer, log, real"),
        ({"type": "log", "low": 0, "high": 1}, "low is 0; a log variable is above 0"),
        ({"type": "integer", "low": 0.5, "high": 3}, "low is 0.5; the bounds of an integer are whole numbers"),
        ({"type": "integer", "low": 0, "high": 10**17}, "beyond 2^53"),
        ({"type": "category"}, 'choices is missing; give choices = ["a", "b"]'),
        ({"type": "category", "choices": ["a"]}, "two values at least"),
        ({"type": "category", "choices": "ab"}, "it must be a list"),
        ({"type": "category", "choices": ["a", 1]}, "all text, or all finite numbers"),
        ({"type": "category", "choices": ["a", "b", "a"]}, "choices has 'a' twice"),
        (5, "variable T: it is 5; write a table with low and high"),
    ],
)
def test_what_defines_no_variable_is_refused(table: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Space({"T": table})
    assert message in str(error.value)


def test_all_faults_of_a_space_come_at_once() -> None:
    with pytest.raises(UsageError) as error:
        Space({"T": {"low": 1}, "a b": {"low": 0, "high": 1}, "p": {"low": 0, "high": 1}})
    assert str(error.value).count("\n- variable") == 2
    assert "variable 'a b': its name is no identifier" in str(error.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [([], "has no variables"), ([Real("x", 0, 1), Log("x", 1, 2)], "two variables are named x")],
)
def test_names_are_there_and_different(variables: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Space(variables)
