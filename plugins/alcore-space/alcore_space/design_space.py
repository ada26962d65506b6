"""A design space: its variables, its constraints, and points of it as values and as inputs of a learner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alcore.errors import UsageError, did_you_mean
from alcore_space.constraints import Constraint
from alcore_space.variables import Array, Variable, highest_of, variable_of


class Space:
    """Variables with bounds, and constraints between them.

    Parameters
    ----------
    variables
        At least one `Real`, `Log`, `Integer` or `Category`; or tables that define them, by name.
    constraints
        What points must satisfy, such as ``"2*x + y <= 3"``; see `alcore_space.constraints.Constraint`.

    Attributes
    ----------
    variables : tuple
        The variables in their order.
    names : list of str
        Their names.
    features : int
        How many inputs a learner has: one a number, and one a value of a category.
    constraints : tuple of Constraint
        The constraints.

    Raises
    ------
    UsageError
        With all that is wrong.
    """

    def __init__(self, variables: Sequence[Variable] | Mapping[str, Any], constraints: Sequence[str] = ()) -> None:
        faults: list[str] = []
        if isinstance(variables, Mapping):
            given: list[Variable] = []
            for name, table in variables.items():
                if not isinstance(table, Mapping):
                    faults.append(f"variable {name}: it is {table!r}; write a table with low and high")
                    continue
                try:
                    given.append(variable_of(name, table))
                except UsageError as error:
                    faults.append(str(error).rstrip("."))
        else:
            given = list(variables)
        _raise(faults)
        self.variables: tuple[Variable, ...] = tuple(given)
        self.names = [variable.name for variable in self.variables]
        if not self.variables:
            raise UsageError(
                "the space has no variables; give each a table, such as [data.space.variables.T] with low = 900 and "
                "high = 1500."
            )
        if repeated := [name for place, name in enumerate(self.names) if name in self.names[:place]]:
            raise UsageError(f"two variables are named {repeated[0]}; rename one.")
        if isinstance(constraints, str):
            raise UsageError(f"constraints is {constraints!r}; it must be a list, such as [{constraints!r}].")
        self.features = sum(variable.width for variable in self.variables)
        made = []
        for text in constraints:
            try:
                made.append(Constraint(text, self.variables))
            except UsageError as error:
                faults.append(str(error).rstrip("."))
        _raise(faults)
        self.constraints = tuple(made)

    @property
    def size(self) -> int | None:
        """How many points it has, constraints aside; None for a continuum."""
        counts = [variable.count for variable in self.variables]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def values(self, unit: Array) -> dict[str, Array]:
        """Return the values at places in the unit cube, by name.

        Parameters
        ----------
        unit
            Float64, shape (n, variables), from 0 and below 1.
        """
        return {variable.name: variable.values(unit[:, place]) for place, variable in enumerate(self.variables)}

    def scaled(self, unit: Array) -> Array:
        """Return the learner's inputs at places in the unit cube: float32, shape (n, features), between 0 and 1."""
        parts = [variable.scaled(unit[:, place]) for place, variable in enumerate(self.variables)]
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")

    def inputs(self, columns: Mapping[str, Any]) -> Array:
        """Return the learner's inputs of values: float32, shape (n, features), between 0 and 1.

        Parameters
        ----------
        columns
            The values of each variable, by name: shape (n,).
        """
        parts = [variable.inputs(np.asarray(columns[variable.name])) for variable in self.variables]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def highest_inputs(self, name: str) -> tuple[slice, Array]:
        """Return which inputs of a learner are those of a variable, and what they are at its highest value, float32."""
        place = self.names.index(name)
        first = sum(variable.width for variable in self.variables[:place])
        variable = self.variables[place]
        top = variable.inputs(np.array([highest_of(variable)]))[0].astype(np.float32)
        return slice(first, first + variable.width), top

    def allowed(self, columns: Mapping[str, Array]) -> Array:
        """Return which points satisfy all constraints: bool, shape (n,)."""
        allowed = np.ones(len(next(iter(columns.values()))), dtype=np.bool_)
        for constraint in self.constraints:
            allowed &= constraint.satisfied(columns)
        return allowed

    def point(self, inputs: Any) -> dict[str, Any]:
        """Return the point whose inputs are nearest: bounds are kept, integers and categories are rounded.

        Parameters
        ----------
        inputs
            Shape (features,), as a learner is given them.
        """
        array = np.asarray(inputs, dtype=np.float64)
        if array.shape != (self.features,):
            raise UsageError(f"inputs of shape {array.shape} are no point of this space; it has ({self.features},).")
        point, place = {}, 0
        for variable in self.variables:
            point[variable.name] = variable.nearest(array[place : place + variable.width])
            place += variable.width
        return point

    def fault(self, point: Any) -> str | None:
        """Return what keeps a point from being one of the space, or None.

        Parameters
        ----------
        point
            The value of each variable, by name.
        """
        if not isinstance(point, Mapping):
            return f"a {type(point).__name__}, and a point is a mapping of values by name: {', '.join(self.names)}"
        for name in point:
            if name not in self.names:
                return f"there is no variable {name!r}: {did_you_mean(str(name), self.names)}"
        for variable in self.variables:
            if variable.name not in point:
                return f"the value of {variable.name} is missing"
            if fault := variable.fault(point[variable.name]):
                return f"{variable.name}: {fault}"
        columns = columns_of([point], self.names)
        for constraint in self.constraints:
            if not constraint.satisfied(columns)[0]:
                return f"it breaks the constraint {constraint.text!r}"
        return None

    def describe(self) -> dict[str, Any]:
        """Return the space as JSON."""
        return {
            "variables": [variable.describe() for variable in self.variables],
            "constraints": [constraint.text for constraint in self.constraints],
        }


def columns_of(points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Array]:
    """Return points as columns of values, by name."""
    return {name: np.array([point[name] for point in points]) for name in names}


def _raise(faults: Sequence[str]) -> None:
    if len(faults) == 1:
        raise UsageError(f"{faults[0]}.")
    if faults:
        raise UsageError(
            f"{len(faults)} things are wrong with the space:\n" + "\n".join(f"- {fault}" for fault in faults)
        )
