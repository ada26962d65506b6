"""The variables of a design space: what values each can have, and what the learner is given of them."""

from __future__ import annotations

import dataclasses
import decimal
import keyword
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from alcore.errors import UsageError, did_you_mean

Array = np.ndarray[Any, Any]

# ln 2 as a number whose last 20 bits are zero, and what is left of it, so that k * _LN2_HIGH is exact for |k| < 2^20
_LN2_HIGH = float.fromhex("0x1.62e42fefa0000p-1")
_LN2_LOW = float.fromhex("0x1.cf79abc9e3b39p-40")
_TERMS = [1 / math.factorial(n) for n in range(14)]


def exponential(x: Array) -> Array:
    """Return e^x for finite x between -700 and 700, float64, to a few units in the last place.

    Sums, products and rounding alone, which IEEE 754 defines to the last bit, so that a point of a space is the same on
    any machine; ``numpy.exp`` is not. The range is reduced by multiples of ln 2 (Cody and Waite 1980, Software manual
    for the elementary functions, chapter 6), and the series of e^r summed for |r| up to ln 2 / 2.
    """
    doublings = np.rint(x * (1 / math.log(2)))
    rest = (x - doublings * _LN2_HIGH) - doublings * _LN2_LOW
    total = np.full_like(rest, _TERMS[-1])
    for term in _TERMS[-2::-1]:
        total = total * rest + term
    return np.ldexp(total, doublings.astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Real:
    """A number between bounds.

    Parameters
    ----------
    name
        A Python identifier, so that constraints can use it.
    low, high
        The bounds, which belong to it.
    unit
        What it is measured in, for people.
    """

    name: str
    low: float
    high: float
    unit: str = ""

    type: ClassVar[str] = "real"
    width: ClassVar[int] = 1
    """How many inputs of the learner it makes."""
    count: ClassVar[int | None] = None
    """How many values it can have; None for a continuum."""

    def __post_init__(self) -> None:
        refuse(self.name, _faults_of_bounds(self))

    def values(self, unit: Array) -> Array:
        """Return the values at places in [0, 1): shape (n,), of float64, int64, or of what a category lists."""
        return np.minimum(self.low + unit * (self.high - self.low), self.high)

    def scaled(self, unit: Array) -> Array:
        """Return the learner's inputs at places in [0, 1): shape (n, width), between 0 and 1."""
        return unit[:, None]

    def inputs(self, values: Array) -> Array:
        """Return the learner's inputs of values: float64, shape (n, width), between 0 and 1."""
        return ((values - self.low) / (self.high - self.low))[:, None]

    def places(self, values: Array) -> Array:
        """Return the places of values in [0, 1]: shape (n,). A whole number has the middle of its part."""
        places: Array = self.inputs(values)[:, 0]
        return places

    def nearest(self, inputs: Array) -> Any:
        """Return the possible value that is nearest to inputs of the learner, shape (width,)."""
        return float(self.values(np.clip(np.asarray(inputs, dtype=np.float64), 0, 1))[0])

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, or None."""
        return _fault_of_number(self, value)

    def describe(self) -> dict[str, Any]:
        """Return the table of an experiment that defines it, with its name."""
        return {"name": self.name, "type": self.type, "low": self.low, "high": self.high, "unit": self.unit}


@dataclasses.dataclass(frozen=True)
class Log(Real):
    """A positive number between bounds, whose logarithm is uniform, and what the learner is given.

    Parameters
    ----------
    name, low, high, unit
        As for `Real`; `low` is above 0.
    """

    type: ClassVar[str] = "log"

    def __post_init__(self) -> None:
        faults = _faults_of_bounds(self)
        if not faults and not self.low > 0:
            faults = [f"low is {self.low:g}; a log variable is above 0"]
        refuse(self.name, faults)

    @property
    def _span(self) -> float:
        return float((decimal.Decimal(self.high) / decimal.Decimal(self.low)).ln())  # rounded correctly anywhere

    def values(self, unit: Array) -> Array:
        """Return the values at places in [0, 1)."""
        return np.clip(self.low * exponential(unit * self._span), self.low, self.high)

    def inputs(self, values: Array) -> Array:
        """Return the learner's inputs of values."""
        return (np.log(values / self.low) / self._span)[:, None]


@dataclasses.dataclass(frozen=True)
class Integer(Real):
    """A whole number between bounds, each equally likely.

    Parameters
    ----------
    name, low, high, unit
        As for `Real`.
    """

    low: int
    high: int

    type: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        faults = _faults_of_bounds(self)
        faults = faults or [
            f"{name} is {value:g}; the bounds of an integer are whole numbers"
            for name, value in (("low", self.low), ("high", self.high))
            if not float(value).is_integer()
        ]
        if not faults and max(abs(self.low), abs(self.high)) > 2**53:
            faults = ["its bounds are beyond 2^53, where numbers are not exact; use a real variable"]
        refuse(self.name, faults)
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many values it can have."""
        return self.high - self.low + 1

    def values(self, unit: Array) -> Array:
        """Return the values at places in [0, 1)."""
        return self.low + _places(unit, self.count)

    def scaled(self, unit: Array) -> Array:
        """Return the learner's inputs at places in [0, 1)."""
        return self.inputs(self.values(unit))

    def places(self, values: Array) -> Array:
        """Return the middles of the parts of [0, 1) that belong to values."""
        return (values - self.low + 0.5) / self.count

    def nearest(self, inputs: Array) -> Any:
        """Return the possible value that is nearest to inputs of the learner."""
        return round(self.low + float(np.clip(inputs[0], 0, 1)) * (self.high - self.low))

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, or None."""
        fault = _fault_of_number(self, value)
        return fault or (None if float(value).is_integer() else f"{value!r} is not a whole number")


@dataclasses.dataclass(frozen=True)
class Category:
    """One of some values without an order; the learner is given one input a value, 0 or 1.

    Parameters
    ----------
    name
        A Python identifier.
    choices
        The values: at least two, all text or all numbers.
    unit
        What they are measured in, for people.
    """

    name: str
    choices: tuple[Any, ...]
    unit: str = ""

    type: ClassVar[str] = "category"

    def __post_init__(self) -> None:
        refuse(self.name, _faults_of_choices(self.choices))
        object.__setattr__(self, "choices", tuple(self.choices))

    @property
    def width(self) -> int:
        """How many inputs of the learner it makes."""
        return len(self.choices)

    @property
    def count(self) -> int:
        """How many values it can have."""
        return len(self.choices)

    @property
    def is_text(self) -> bool:
        """Whether its values are text."""
        return isinstance(self.choices[0], str)

    def values(self, unit: Array) -> Array:
        """Return the values at places in [0, 1)."""
        values: Array = np.array(self.choices)[_places(unit, self.count)]
        return values

    def scaled(self, unit: Array) -> Array:
        """Return the learner's inputs at places in [0, 1)."""
        inputs: Array = np.eye(self.count)[_places(unit, self.count)]
        return inputs

    def inputs(self, values: Array) -> Array:
        """Return the learner's inputs of values."""
        matches: Array = np.asarray(values)[:, None] == np.array(self.choices)[None, :]
        return matches.astype(np.float64)

    def places(self, values: Array) -> Array:
        """Return the middles of the parts of [0, 1) that belong to values."""
        places: Array = (self.inputs(values).argmax(axis=1) + 0.5) / self.count
        return places

    def nearest(self, inputs: Array) -> Any:
        """Return the possible value that is nearest to inputs of the learner."""
        return self.choices[int(np.argmax(inputs))]

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, or None."""
        if value in self.choices and not isinstance(value, bool):
            return None
        return f"{value!r} is none of its values; {did_you_mean(str(value), map(str, self.choices))}"

    def describe(self) -> dict[str, Any]:
        """Return the table of an experiment that defines it, with its name."""
        return {"name": self.name, "type": self.type, "choices": list(self.choices), "unit": self.unit}


Variable = Real | Category
"""A variable of a design space; `Log` and `Integer` are `Real`."""
TYPES: dict[str, Any] = {cls.type: cls for cls in (Real, Log, Integer, Category)}
"""The types of variables by their names."""


def highest_of(variable: Variable) -> Any:
    """Return the highest value of a number, and the last choice of a category."""
    return variable.choices[-1] if isinstance(variable, Category) else variable.high


def variable_of(name: str, table: Mapping[str, Any]) -> Variable:
    """Return the variable that a table of an experiment defines.

    Raises
    ------
    UsageError
        For a name, a key or a value that can't be used.
    """
    given = dict(table)
    kind = given.pop("type", "real")
    if kind not in TYPES:
        raise UsageError(f"variable {name}: type is {kind!r}; {did_you_mean(str(kind), TYPES)}.")
    names = [field.name for field in dataclasses.fields(TYPES[kind]) if field.name != "name"]
    faults = [
        f"there is no {key!r} of a variable of type {kind}; {did_you_mean(str(key), ['type', *names])}"
        for key in given
        if key not in names
    ]
    if not isinstance(given.get("unit", ""), str):
        faults.append(f"unit is {given['unit']!r}; a unit is text, such as unit = 'K'")
    missing = [key for key in names if key != "unit" and key not in given]
    for key in missing:
        example = '["a", "b"]' if key == "choices" else "a number"
        faults.append(f"{key} is missing; give {key} = {example}")
    made: Variable | None = None
    if not missing:
        try:
            made = TYPES[kind](name, **{key: value for key, value in given.items() if key in names})
        except UsageError as error:
            faults.append(str(error).removeprefix(f"variable {name}: ").rstrip("."))
    if faults or made is None:
        raise UsageError(f"variable {name}: {'; and '.join(faults)}.")
    return made


def refuse(name: Any, faults: Sequence[str]) -> None:
    """Raise `UsageError` for the faults of a variable, and for a name that constraints can't use."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(
            f"variable {name!r}: its name is no identifier; letters, digits and _ make one, such as wall_thickness, so "
            "that constraints can use it."
        )
    if faults:
        raise UsageError(f"variable {name}: {faults[0]}.")


def _faults_of_bounds(variable: Real) -> list[str]:
    low, high = variable.low, variable.high
    for name, value in (("low", low), ("high", high)):
        if not _is_number(value):
            return [f"{name} is {value!r}; it must be a finite number"]
    if low > high:
        return [f"low is {low:g} and high is {high:g}; exchange them"]
    if low == high:
        return [f"low and high are both {low:g}; leave the variable out, since it doesn't vary"]
    if not math.isfinite(float(high) - float(low)):
        return [f"low is {low:g} and high is {high:g}, whose difference is too large"]
    return []


def _faults_of_choices(choices: Any) -> list[str]:
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        return [f'choices is {choices!r}; it must be a list, such as choices = ["a", "b"]']
    if len(choices) < 2:
        return [f"choices is {list(choices)!r}; a category has two values at least"]
    if not all(isinstance(choice, str) for choice in choices) and not all(_is_number(choice) for choice in choices):
        return [f"choices is {list(choices)!r}; its values must be all text, or all finite numbers"]
    repeated = [choice for place, choice in enumerate(choices) if choice in choices[:place]]
    return [f"choices has {repeated[0]!r} twice"] if repeated else []


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite real number, of any library; bools are not."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_:
        return False
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _fault_of_number(variable: Real, value: Any) -> str | None:
    if not _is_number(value):
        return f"{value!r} is not a finite number"
    if not variable.low <= value <= variable.high:
        unit = f" {variable.unit}" if variable.unit else ""
        return f"{value:.12g} is outside of its bounds {variable.low:g} to {variable.high:g}{unit}"
    return None


def _places(unit: Array, count: int) -> Array:
    return np.minimum((unit * count).astype(np.int64), count - 1)
