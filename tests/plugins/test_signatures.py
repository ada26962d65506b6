"""Parameters of factories: hints of every kind, ``--set`` as TOML or plain text, all faults at once, documentation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.plugins import RawValue, accepts, describe_factory, parameters_of, validate
from alcore.plugins.signatures import torch_dtype, type_name

REQUIRED = object()


def taking(hint, default=REQUIRED):
    """Return a factory with one parameter ``x`` of this hint."""

    def factory(x):
        return x

    factory.__annotations__ = {"x": hint}
    if default is not REQUIRED:
        factory.__defaults__ = (default,)
    return factory


def check(hint, value):
    """Return the value as the factory gets it, or raise what the user would read."""
    result, faults = validate(taking(hint), {"x": value}, "query.q")
    if faults:
        raise ValueError(faults[0])
    return result["x"]


GOOD = [
    (int, 3, 3),
    (float, 3, 3.0),
    (float, 0.5, 0.5),
    (bool, True, True),
    (str, "word", "word"),
    (Literal["a", "b"], "a", "a"),
    (Literal["a", 2], 2, 2),
    (Path, "some/file.csv", Path("some/file.csv")),
    (list[int], [1, 2], [1, 2]),
    (tuple[str, ...], ["a", "b"], ("a", "b")),
    (tuple[int, float], [1, 2], (1, 2.0)),
    (Sequence[int], [16], [16]),
    (dict[str, float], {"a": 1.5}, {"a": 1.5}),
    (int | None, 4, 4),
    (str | int, 4, 4),
    (str | int, "4", "4"),
    (int | float, 4, 4),
    (torch.device, "cpu", torch.device("cpu")),
    (torch.device | None, "cuda:1", torch.device("cuda", 1)),
    (torch.dtype, "float64", torch.float64),
    (torch.dtype | None, "torch.bfloat16", torch.bfloat16),
    (Any, {"any": ["thing"]}, {"any": ["thing"]}),
    ("NowhereDefined", ["anything"], ["anything"]),
]


@pytest.mark.parametrize(("hint", "value", "expected"), GOOD, ids=lambda value: str(value))
def test_valid_value_arrives_with_the_type_of_its_hint(hint, value, expected):
    argument = check(hint, value)
    assert argument == expected
    assert type(argument) is type(expected)


BAD = [
    (int, True),
    (int, 3.5),
    (int, "3"),
    (float, "much"),
    (float, False),
    (bool, "yes"),
    (bool, 1),
    (str, 3),
    (Literal["a", "b"], "c"),
    (Path, 3),
    (list[int], [1, "b"]),
    (list[int], 1),
    (tuple[str, ...], "ab"),
    (tuple[int, float], [1]),
    (int | None, "none"),
    (torch.device, "quantum"),
    (torch.device | None, "quantum"),
    (torch.dtype, "float23"),
    (torch.dtype, "nn"),
    (DeprecationWarning, "text"),
]


@pytest.mark.parametrize(("hint", "value"), BAD, ids=lambda value: str(value))
def test_invalid_value_is_refused_with_its_hint(hint, value):
    with pytest.raises(ValueError, match=r"^query\.q\.x is ") as error:
        check(hint, value)
    assert repr(value) in str(error.value)
    assert type_name(hint) in str(error.value)


SCALARS = {int: st.integers(-(2**62), 2**62), float: st.floats(allow_nan=False), bool: st.booleans(), str: st.text()}


@given(st.data(), st.sampled_from(list(SCALARS)), st.sampled_from(list(SCALARS)))
def test_scalar_fits_its_own_hint_only(data, hint, kind):
    # except that a whole number is a float too
    value = data.draw(SCALARS[kind])
    whole = kind is float and hint is int and float(value).is_integer()  # 3.0 may count as 3
    if hint is kind or (hint is float and kind is int):
        argument = check(hint, value)
        assert argument == hint(value)
        assert type(argument) is hint
    elif not whole:
        with pytest.raises(ValueError, match="must be"):
            check(hint, value)


@given(st.text())
def test_raw_text_reaches_a_text_parameter(text):
    """Quoted TOML is unquoted; everything else arrives as it was typed."""
    argument = check(str, RawValue(text))
    parsed = RawValue(text).parsed()
    assert argument == (parsed if isinstance(parsed, str) else text)


@given(st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_raw_number_is_read_as_toml(value):
    typed = RawValue(str(value).lower() if isinstance(value, bool) else repr(value))
    assert check(type(value), typed) == value
    assert check(str, typed) == str(typed)
    assert check(Path, typed) == Path(typed)


@pytest.mark.parametrize(
    ("hint", "typed", "expected"),
    [
        (str, "1", "1"),
        (str | None, "1", "1"),
        (str, '"1"', "1"),
        (str, "007", "007"),
        (str, "true", "true"),
        (str, "", ""),
        (str, "1_000", "1_000"),
        (str, "nan", "nan"),
        (str, "[a]", "[a]"),
        (str, "1979-05-27", "1979-05-27"),
        (str, "1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z"),
        (Path, "~/2024", Path("~/2024")),
        (Path, "2024", Path("2024")),
        (Path | None, "1.5", Path("1.5")),
        (int, "1_000", 1000),
        (list[int], "[1, 2]", [1, 2]),
        (tuple[str, ...], '["a", "b"]', ("a", "b")),
        (str | int, "1", 1),
        (int | None, "5", 5),
        (Literal["1", "2"], "1", "1"),
        (torch.device, "cpu", torch.device("cpu")),
    ],
    ids=lambda value: str(value),
)
def test_raw_value_is_toml_or_else_plain_text(hint, typed, expected):
    argument = check(hint, RawValue(typed))
    assert argument == expected
    assert type(argument) is type(expected)


def test_undecodable_text_is_refused():
    _, faults = validate(taking(Path), {"x": RawValue("\udcff.csv")}, "data.csv")
    assert faults
    assert faults[0].startswith("data.csv.x is ")


def strategy(count: int, share: float = 0.5, mode: Literal["up", "down"] = "up", name: str = "n") -> None:
    """Do something."""


def test_all_faults_come_at_once():
    _, faults = validate(
        strategy, {"share": "big", "mode": "upp", "nmae": 3, "name": 4}, "query.q"
    )  # fmt: skip
    assert sorted(faults) == [
        "query.q has no parameter 'nmae': did you mean 'name'? There are: count, mode, name, share",
        "query.q.count is missing; give it with --set query.q.count=VALUE (int)",
        "query.q.mode is 'upp'; it must be 'up' | 'down'",
        'query.q.name is 4; it must be str: text is written in quotes, as "4"',
        "query.q.share is 'big'; it must be float",
    ]


def test_numbers_in_place_of_text_are_told_how_text_is_written():
    told = 'query.q.x is [1, 0]; it must be tuple[str, ...]: text is written in quotes, as "1"'
    assert validate(taking(tuple[str, ...]), {"x": [1, 0]}, "query.q")[1] == [told]


def test_union_and_list_give_one_fault_a_parameter():
    _, faults = validate(taking(int | float | None | list[int]), {"x": "word"}, "query.q")
    assert len(faults) == 1
    _, faults = validate(taking(list[int]), {"x": ["a", "b", "c"]}, "query.q")
    assert len(faults) == 1


def test_absent_value_is_left_to_the_factory():
    assert validate(strategy, {"count": 2}, "q") == ({"count": 2}, [])


def test_other_names_are_accepted_with_kwargs_only():
    def open_ended(count: int = 1, **kwargs): ...

    assert validate(open_ended, {"other": [1]}, "q") == ({"other": [1]}, [])
    assert validate(open_ended, {"count": "a"}, "q")[1] == ["q.count is 'a'; it must be int"]
    assert validate(lambda: None, {"other": 1}, "q")[1] == ["q has no parameter 'other': there are none"]


def test_info_is_not_a_parameter_of_the_user():
    def learner(info, width: int = 3): ...

    found, _ = parameters_of(learner)
    assert [parameter.name for parameter in found] == ["width"]
    assert "no parameter 'info'" in validate(learner, {"info": 3}, "q")[1][0]
    assert accepts(learner, "info")
    assert not accepts(learner, "seed")


def test_partial_values_miss_nothing_and_are_checked():
    assert validate(strategy, {"share": 1}, "q", partial=True) == ({"share": 1.0}, [])
    assert "no parameter 'cuont'" in validate(strategy, {"cuont": 1}, "q", partial=True)[1][0]


def test_factory_that_is_not_hashable_is_checked():
    class Factory:
        __hash__ = None

        def __call__(self, count: int) -> None: ...

    assert validate(Factory(), {"count": 1, "x": 2}, "q")[1] == ["q has no parameter 'x': there are: count"]


def test_hint_that_can_not_be_resolved_counts_as_any():
    def factory(first: Unknown, second: int): ...  # noqa: F821 - the point of this test

    hints = {parameter.name: parameter.hint for parameter in parameters_of(factory)[0]}
    assert hints == {"first": Any, "second": int}

    class Strategy:
        def __init__(self, first: Unknown, second: bool = True) -> None: ...  # noqa: F821

    assert validate(Strategy, {"first": [1, {}], "second": "no"}, "q")[1] == ["q.second is 'no'; it must be bool"]


def test_names_of_pydantic_methods_are_accepted():
    def factory(copy: int, json: int, model_config: int, schema: int, self_: int, _private: int): ...

    names = ["copy", "json", "model_config", "schema", "self_", "_private"]
    assert validate(factory, dict.fromkeys(names, 1), "q") == (dict.fromkeys(names, 1), [])
    assert len(validate(factory, dict.fromkeys(names, "a"), "q")[1]) == len(names)


class WithoutConstructor:
    """A class without a constructor of its own."""


@pytest.mark.parametrize(
    "factory",
    [WithoutConstructor, int, dict.fromkeys, functools.partial(strategy, 3), print],
    ids=["class", "int", "method", "partial", "built-in"],
)
def test_factory_of_any_kind_has_parameters(factory):
    found, open_ended = parameters_of(factory)
    assert isinstance(found, list)
    assert isinstance(open_ended, bool)
    assert describe_factory(factory)["parameters"] is not None


def test_partial_has_its_fixed_value_as_default():
    parameters = {parameter.name: parameter for parameter in parameters_of(functools.partial(strategy, share=0.25))[0]}
    assert not parameters["share"].required
    assert parameters["share"].default == 0.25


class Documented:
    """Ask for samples,
    in two lines.

    Parameters
    ----------
    count
        How many.
    low, high : float
        The two ends
        of the range.
    *args, **kwargs
        Not used.

    Notes
    -----
    count
        is not described here.
    """

    def __init__(
        self, count: int, low: float = 0.0, high: float = 1.0, device: torch.device | None = None,
        path: Path = Path("a/b"), ends: tuple[int, ...] = (1, 2), call: Callable[[int], int] = abs, **kwargs: Any
    ) -> None: ...  # fmt: skip


def test_factory_is_described_from_signature_and_docstring():
    described = describe_factory(Documented)
    assert described["summary"] == "Ask for samples, in two lines."
    assert described["other_parameters"] is True
    by_name = {parameter["name"]: parameter for parameter in described["parameters"]}
    assert list(by_name) == ["count", "low", "high", "device", "path", "ends", "call"]
    assert by_name["count"] == {"name": "count", "type": "int", "required": True, "default": None, "doc": "How many."}
    assert by_name["low"]["doc"] == by_name["high"]["doc"] == "The two ends of the range."
    assert (by_name["high"]["default"], by_name["high"]["required"]) == (1.0, False)
    assert by_name["device"]["type"] == "torch.device | None"
    assert by_name["path"]["default"] == "a/b"
    assert by_name["ends"] == {
        "name": "ends", "type": "tuple[int, ...]", "required": False, "default": [1, 2], "doc": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (Any, "any"),
        (int, "int"),
        (None | int, "None | int"),
        (Literal["a", 3], "'a' | 3"),
        (list[int], "list[int]"),
        (tuple[str, ...], "tuple[str, ...]"),
        (dict[str, list[float]], "dict[str, list[float]]"),
        (torch.dtype, "torch.dtype"),
        (Path, "Path"),
        (Sequence[int], "Sequence[int]"),
    ],
)
def test_type_name_is_readable(hint, name):
    assert type_name(hint) == name


@pytest.mark.parametrize("name", ["float32", "torch.float32"])
def test_dtype_is_found_by_name(name):
    assert torch_dtype(name) is torch.float32


@pytest.mark.parametrize("name", ["nn", "float23", "", "manual_seed"])
def test_name_that_is_not_a_dtype_is_refused(name):
    with pytest.raises(ValueError, match="is not a torch dtype"):
        torch_dtype(name)
