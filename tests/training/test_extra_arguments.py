"""Which of some arguments a function takes."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from alcore.training.extra_arguments import accepted, taken_by, with_keywords


def narrow(own: Any) -> Any:
    return own


def named(own: Any, foo: Any = None, *, bar: Any = None) -> Any:
    return own, foo, bar


def only(own: Any, foo: Any = None, /) -> Any:
    return own, foo


def rest(own: Any, *args: Any, **kwargs: Any) -> Any:
    return own, args, kwargs


class Method:
    def step(self, own: Any, foo: Any = None) -> Any:
        return own, foo

    __call__ = step


BOTH = {"foo": 1, "bar": 2}


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (narrow, (7,), BOTH, ((), {})),
        (named, (), BOTH, ((), BOTH)),
        (named, (7,), {"bar": 2}, ((7,), {"bar": 2})),
        (named, (7,), BOTH, ((), BOTH)),  # foo can't be both
        (named, (7, 8), {}, ((), {})),
        (named, (), {"own": 3, "other": 4}, ((), {})),
        (only, (7,), BOTH, ((7,), {})),
        (rest, (7, 8), BOTH, ((7, 8), BOTH)),
        (Method().step, (7,), {"bar": 2}, ((7,), {})),
        (Method(), (), BOTH, ((), {"foo": 1})),
        (functools.partial(named, bar=5), (), {"bar": 2}, ((), {"bar": 2})),
    ],
)
def test_accepted_arguments_can_be_given(function: Any, args: Any, kwargs: Any, expected: Any) -> None:
    names = accepted(function, 1, args, kwargs)
    assert names == expected
    function("own", *names[0], **names[1])


def test_function_without_a_readable_signature_takes_anything() -> None:
    assert taken_by(object.__new__(type("Odd", (), {"__signature__": 3, "__call__": rest})), 1).any_name
    assert accepted(dict.fromkeys, 1, (), {})[1] == {}


def test_keywords_are_given_also_where_the_caller_gives_none_or_the_same() -> None:
    assert with_keywords(named, 1, {}) is named
    bound = with_keywords(named, 1, {**BOTH, "other": 3})
    assert bound("x") == ("x", 1, 2)
    assert bound("x", foo=5) == ("x", 5, 2)
    assert bound("x", **BOTH, other=3) == ("x", 1, 2)  # a loop passes on what it was given
    with pytest.raises(TypeError, match="nobody"):
        bound("x", nobody=1)
    assert with_keywords(narrow, 1, BOTH)("x", **BOTH) == "x"
