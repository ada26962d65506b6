"""Make inputs of a CSV file of points of a design space, as they were made when a model was trained.

This file needs NumPy and the standard library alone. ``alcore export`` writes it beside ``preprocessing.json``:
``read(description, path)`` takes the content of that file and a new file, and returns the inputs of its rows.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read(description: Mapping[str, Any], path: str | Path) -> np.ndarray[Any, Any]:
    """Return the inputs of all rows of a CSV file: float32, shape (N, features).

    Parameters
    ----------
    description
        The content of ``preprocessing.json``.
    path
        A CSV file in UTF-8 with a column for each variable, in any order; columns of the targets are not read.

    Raises
    ------
    ValueError
        For columns that are missing or not known, for values that are none of their variable, and for a file without
        rows.

    Warns
    -----
    UserWarning
        For points outside of the bounds, where a prediction is an extrapolation.
    """
    inputs = inputs_of(description, path)
    outside = np.flatnonzero((inputs < -1e-6).any(axis=1) | (inputs > 1 + 1e-6).any(axis=1))
    if len(outside):
        warnings.warn(
            f"{Path(path).name}: {len(outside)} of {len(inputs)} points are outside of the bounds of the space, the "
            f"first of them in row {outside[0]}, counted from 0; their predictions are extrapolated.",
            stacklevel=2,
        )
    return inputs


def inputs_of(description: Mapping[str, Any], path: str | Path) -> np.ndarray[Any, Any]:
    """Return the inputs of all rows of a CSV file as `read` does, without its warning."""
    names, rows = table(path, [variable["name"] for variable in description["variables"]])
    names_of_columns = [*(variable["name"] for variable in description["variables"]), *description["targets"]]
    if unknown := [name for name in names if name not in names_of_columns]:
        raise ValueError(
            f"has a column {unknown[0]!r}, which is no variable of the space: {', '.join(names_of_columns)}"
        )
    columns = {}
    for variable in description["variables"]:
        name = variable["name"]
        if names.count(name) != 1:
            what = "lacks the column" if name not in names else "has several columns"
            raise ValueError(f"{what} {name!r}; a column for each variable is needed")
        columns[name] = [value_of(variable, row[names.index(name)], line) for line, row in rows]
    if not rows:
        raise ValueError("has no row below its header")
    return encode(description, columns)


def table(path: str | Path, wanted: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names in the first line of a CSV file, and for each other row its line, from 1, and its cells.

    Cells are separated by commas, semicolons, tabs or bars: by what divides the first line into most of the wanted
    names.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    best: tuple[list[str], list[tuple[int, list[str]]]] = ([], [])
    for delimiter in (",", ";", "\t", "|"):
        reader = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
        lines = [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
        if lines and len(set(wanted) & set(lines[0][1])) > len(set(wanted) & set(best[0])):
            best = (lines[0][1], lines[1:])
    names, rows = best
    if not names:
        raise ValueError(f"has no column of a variable in its first line: {', '.join(wanted)}")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"has {len(row)} cells in line {line}, and the first line has {len(names)}")
    return names, rows


def value_of(variable: Mapping[str, Any], cell: str, line: int) -> Any:
    """Return the value of a variable in a cell."""
    where = f"line {line}, column {variable['name']!r}"
    if variable["type"] == "category":
        for choice in variable["choices"]:
            if cell == str(choice) or (not isinstance(choice, str) and number(cell) == choice):
                return choice
        raise ValueError(f"{where}: {cell!r} is none of {', '.join(map(str, variable['choices']))}")
    value = number(cell)
    if value is None:
        raise ValueError(f"{where}: {cell!r} is not a finite number")
    if variable["type"] == "integer" and not value.is_integer():
        raise ValueError(f"{where}: {cell!r} is not a whole number")
    if variable["type"] == "log" and not value > 0:
        raise ValueError(f"{where}: {cell!r} is not above 0, and the variable is logarithmic")
    return value


def number(cell: str) -> float | None:
    """Return the finite number in a cell, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def encode(description: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> np.ndarray[Any, Any]:
    """Return the inputs of values by variable: float32, shape (N, features); 0 and 1 are the bounds of a number."""
    parts = []
    for variable in description["variables"]:
        values = columns[variable["name"]]
        if variable["type"] == "category":
            parts += [[float(value == choice) for value in values] for choice in variable["choices"]]
            continue
        given, low, high = np.array(values, dtype=np.float64), variable["low"], variable["high"]
        if variable["type"] == "log":
            parts.append(np.log(given / low) / math.log(high / low))
        else:
            parts.append((given - low) / (high - low))
    return np.stack([np.asarray(part, dtype=np.float64) for part in parts], axis=1).astype(np.float32)
