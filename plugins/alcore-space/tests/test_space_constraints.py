"""Constraints are parsed into known operations, against Python's own arithmetic; everything else is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from alcore_space import Category, Integer, Real, Space
from alcore_space.constraints import Constraint

from alcore import UsageError

VARIABLES = [
    Real("x", -2, 2), Real("y", 0, 3), Integer("n", 1, 9), Category("fuel", ("H2", "CH4")), Category("m", (16, 32)),
]  # fmt: skip
UNIT = np.random.default_rng(0).random((300, 5))
COLUMNS = Space(VARIABLES).values(UNIT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*x + y <= 3", lambda x, y, **_: 2 * x + y <= 3),
        ("  2*x + y <= 3 ", lambda x, y, **_: 2 * x + y <= 3),
        ("0 < x < y", lambda x, y, **_: 0 < x < y),
        ("sqrt(y)*x < 1", lambda x, y, **_: math.sqrt(y) * x < 1),
        ("-x**2 + +y > -1 % 0.7", lambda x, y, **_: -(x**2) + y > -1 % 0.7),
        ("x / y > 0.5 or not y >= n / 3", lambda x, y, n, **_: x / y > 0.5 or not y >= n / 3),
        ("fuel == 'H2' and n != 3", lambda fuel, n, **_: fuel == "H2" and n != 3),
        ("fuel != \"H2\" or m == 16", lambda fuel, m, **_: fuel != "H2" or m == 16),
        ("max(x, y, n - 4) < min(2, pi - y)", lambda x, y, n, **_: max(x, y, n - 4) < min(2, math.pi - y)),
        ("exp(x) + log10(y) <= 1", lambda x, y, **_: math.exp(x) + math.log10(y) <= 1),
        ("abs(sin(x)) * e > cos(y)", lambda x, y, **_: abs(math.sin(x)) * math.e > math.cos(y)),
        ("floor(y) == ceil(x)", lambda x, y, **_: math.floor(y) == math.ceil(x)),
        ("1 < 2", lambda **_: True),
        ("9**9**9 > x", lambda **_: True),
    ],
)  # fmt: skip
def test_points_satisfy_what_python_says(text: str, expected: Callable[..., bool]) -> None:
    satisfied = Constraint(text, VARIABLES).satisfied(COLUMNS)
    assert satisfied.dtype == np.bool_
    rows = [{name: column[row].item() for name, column in COLUMNS.items()} for row in range(300)]
    assert satisfied.tolist() == [expected(**row) for row in rows]


@pytest.mark.parametrize("text", ["sqrt(x) <= 9", "log(x) <= 9", "1 / (n - n) < 0", "asin(y + 1) <= 9 or x > 5"])
def test_where_an_expression_has_no_value_the_point_is_not_allowed(text: str) -> None:
    satisfied = Constraint(text, VARIABLES).satisfied(COLUMNS)
    assert not satisfied[COLUMNS["x"] < 0].any()


REFUSED = [
    ("2*x + z <= 3", "column 7 at 'z': there is no variable 'z': there are: fuel, m, n, x, y"),
    ("fule == 'H2'", "column 1 at 'fule': there is no variable 'fule': did you mean 'fuel'?"),
    ("x + y", "it has a value, and compares nothing; write such as x + y <= 1"),
    ("fuel", "it has a value, and compares nothing"),
    ("x = 3", "it can't be read (column 3: '= 3'); write == to compare"),
    ("sqrt(x", "it can't be read (column 5"),
    ("x <", "it can't be read (at its end)"),
    ("", "it can't be read (at its end)"),
    ("x ^ 2 < 1", "column 1 at 'x ^ 2': ^ is not known; write ** for a power"),
    ("(x < 1) & (y < 1)", "& and | are not known; write and, or"),
    ("sqr(x) < 1", "column 1 at 'sqr': there is no function 'sqr': did you mean 'sqrt'?"),
    ("sqrt < 1", "sqrt is a function; write sqrt(...)"),
    ("sqrt(x, y) < 1", "sqrt takes one argument, not 2"),
    ("min(x) < 1", "min takes two or more arguments, not 1"),
    ("sqrt(*x) < 1", "takes plain arguments"),
    ("min(x, y=2) < 1", "takes plain arguments"),
    ("fuel == 'H3'", "column 9 at \"'H3'\": fuel is never 'H3': did you mean 'H2'? There are: CH4, H2"),
    ("fuel < 'H2'", "text has no order; compare it with == or !="),
    ("fuel == 3", "column 9 at '3': a number is compared with text"),
    ("fuel == x", "a number is compared with text"),
    ("fuel + 1 < 2", "column 1 at 'fuel': it is text, and a number is needed here"),
    ("(x < 1) < 2", "join comparisons with and, or"),
    ("x and y < 2", "column 1 at 'x': it is a number, and a comparison is needed here"),
    ("x in y", "only <, <=, >, >=, == and != compare"),
    ("x is y", "only <, <=, >, >=, == and != compare"),
    ("True", "True, False and None are no values here"),
    ("x < 1j", "this value can't be used in a constraint"),
    ("x < " + "9" * 400, "this number is too large"),
    ("__import__('os').system('x') < 1", "column 1 at \"__import__('os').system\": a dot can't be called"),
    ("x.real < 1", "a dot can't be used in a constraint"),
    ("[x][0] < 1", "an index can't be used in a constraint"),
    ("(lambda: 1) < 1", "a lambda can't be used in a constraint"),
    ("x if x < 1 else y", "if can't be used in a constraint"),
    ("(a := x) < 1", ":= can't be used in a constraint"),
    ("x < 1, y < 2", "a comma outside of a function can't be used"),
    ("~n < 1", "this operator can't be used"),
    ("f'{x}' == 'a'", "an f-string can't be used"),
    ("(" * 300 + "x" + ")" * 300 + " < 1", "it can't be read"),
    ("-" * 900 + "x < 1", "nested more than 200 levels deep"),
    ("-" * 199 + "x < 1", "nested more than 200 levels deep"),
    ("x < 1 or " * 200 + "x < 1", "characters, more than 1000"),
    (5, "a constraint is text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[str(text)[:30] for text, _ in REFUSED])
def test_everything_else_is_refused_with_its_place(text: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Constraint(text, VARIABLES)
    assert message in str(error.value)


def test_a_column_is_counted_in_characters() -> None:
    with pytest.raises(UsageError, match="column 17 at 'z'"):
        Constraint("'ä' == 'ö' or 1<z", VARIABLES)


def test_all_constraints_must_hold() -> None:
    space = Space(VARIABLES, ["x > 0", "y > 1"])
    assert space.allowed(COLUMNS).tolist() == ((COLUMNS["x"] > 0) & (COLUMNS["y"] > 1)).tolist()
    with pytest.raises(UsageError, match=r"2 things are wrong(.|\n)*'x >'(.|\n)*'z > 0'"):
        Space(VARIABLES, ["x >", "x < 1", "z > 0"])
    with pytest.raises(UsageError, match="it must be a list"):
        Space(VARIABLES, "x < 1")


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_bound_on_nesting_is_a_number_whatever_the_recursion_limit(limit: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        deepest = Constraint("-" * 198 + "x < 1", VARIABLES)  # the comparison, the signs and the variable
        assert deepest.satisfied({"x": np.array([0.5, 2.0])}).tolist() == [True, False]
        Constraint(" + ".join(["x"] * 199) + " < 1", VARIABLES)
        for text in ("-" * 199 + "x < 1", "-" * 990 + "x < 1", "+".join(["x"] * 200) + " < 1"):
            with pytest.raises(UsageError, match="nested more than 200 levels deep"):
                Constraint(text, VARIABLES)
    finally:
        sys.setrecursionlimit(before)
