"""Files of points: what ``alcore predict`` reads, and the points that a run is measured on."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore_space import standalone
from alcore_space.design_space import Space
from alcore_space.variables import Array

_FORMAT = "alcore-space 1"


class SpacePreprocessing:
    """Makes inputs of the points in a CSV file, which has a column for each variable.

    Parameters
    ----------
    description
        What `describe` returns: the variables, the constraints and the names of the targets.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        if description.get("format") != _FORMAT:
            raise UsageError(
                f"this preprocessing has the format {description.get('format')!r}, and this version of alcore-space "
                f"reads {_FORMAT!r}; install the version of alcore-space that made it."
            )
        self._description = description

    @classmethod
    def of(cls, space: Space, targets: Sequence[str]) -> SpacePreprocessing:
        """Return that of a space."""
        return cls({"format": _FORMAT, **space.describe(), "targets": list(targets)})

    def describe(self) -> Mapping[str, Any]:
        """Return how inputs are made, as JSON whose numbers are exact."""
        return self._description

    def source(self) -> str:
        """Return the source of a module that reads files as this does, with NumPy alone."""
        return Path(standalone.__file__).read_text(encoding="utf-8")

    def read(self, path: Path) -> torch.Tensor:
        """Return the inputs of all rows of a CSV file: float32, shape (N, features).

        Raises
        ------
        UsageError
            For columns that are missing or not known, and for values that are none of their variable.

        Warns
        -----
        UserWarning
            For points outside of the bounds, where a prediction is an extrapolation.
        """
        return torch.from_numpy(_read(standalone.read, path, self._description))


def read_arrays(path: Path, space: Space, targets: Sequence[str], shape: Sequence[int]) -> tuple[Array, Array]:
    """Return the inputs and the targets of the points in an NPZ file, whose targets may be fields.

    Parameters
    ----------
    path
        The file, with an array (N,) for each variable, and one (N, *shape) for each target.
    space
        Its points must be of this space.
    targets
        Names of the targets, numbers or fields.
    shape
        Shape of one target.

    Returns
    -------
    tuple of numpy.ndarray
        Inputs, float32 (N, features); targets, float32 (N, *shape), of several (N, T, *shape).

    Raises
    ------
    UsageError
        For a file that can't be read, arrays that are missing or don't fit, and points that are none of the space.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in (*space.names, *targets)}
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UsageError(f"{path.name} is not an NPZ file of numbers; write it with numpy.savez.") from None
    names = [*space.names, *targets]
    if missing := [name for name in names if name not in arrays]:
        raise UsageError(
            f"{path.name} lacks the array {missing[0]!r}; it needs one for each variable and target: "
            f"{', '.join(names)}."
        )
    count = len(arrays[names[0]]) if arrays[names[0]].ndim else 0
    for name in names:
        wanted = (count, *(shape if name in targets else ()))
        if arrays[name].shape != wanted or not count:
            raise UsageError(
                f"{path.name}: the array {name!r} has the shape {arrays[name].shape}, and it must be {wanted}, with at "
                "least one point."
            )
    for place in range(count):
        point = {name: arrays[name][place].item() for name in space.names}
        if fault := space.fault(point):
            raise UsageError(f"{path.name}, point {place} (counted from 0) is none of the space: {fault}.")
    for name in targets:
        if arrays[name].dtype.kind not in "iuf" or not np.isfinite(arrays[name]).all():
            raise UsageError(f"{path.name}: the array {name!r} must be of finite numbers.")
    values = [arrays[name].astype(np.float32) for name in targets]
    return space.inputs(arrays), values[0] if len(values) == 1 else np.stack(values, axis=1)


def read_labeled(path: Path, space: Space, targets: Sequence[str], codes: Sequence[str]) -> tuple[Array, Array]:
    """Return the inputs and the targets of the points in a CSV file.

    Parameters
    ----------
    path
        The file, with a column for each variable and for each target.
    space
        Its points must be of this space.
    targets
        Names of the targets.
    codes
        Names of the classes; empty for a regression.

    Returns
    -------
    tuple of numpy.ndarray
        Inputs, float32 (N, features); targets, float32 (N,) or (N, T), or int64 (N,) for classes.
    """
    description = SpacePreprocessing.of(space, targets).describe()
    inputs = _read(standalone.inputs_of, path, description)
    names, rows = standalone.table(path, space.names)
    for name in targets:
        if name not in names:
            raise UsageError(
                f"{path.name} lacks the column {name!r} with the target of each point; data.space.targets names it."
            )
    for line, row in rows:
        by_name = dict(zip(names, row, strict=True))
        point = {
            variable["name"]: standalone.value_of(variable, by_name[variable["name"]], line)
            for variable in description["variables"]
        }
        if fault := space.fault(point):
            raise UsageError(f"{path.name}, line {line} is no point of the space: {fault}.")
    targets_of_rows: list[list[float]] = []
    for line, row in rows:
        cells = [row[names.index(name)] for name in targets]
        if codes:
            if cells[0] not in codes:
                raise UsageError(f"{path.name}, line {line}: {cells[0]!r} is none of the classes {', '.join(codes)}.")
            targets_of_rows.append([codes.index(cells[0])])
            continue
        numbers = [standalone.number(cell) for cell in cells]
        if None in numbers:
            raise UsageError(f"{path.name}, line {line}: {cells[numbers.index(None)]!r} is not a finite number.")
        targets_of_rows.append([number for number in numbers if number is not None])
    array = np.array(targets_of_rows, dtype=np.int64 if codes else np.float32)
    return inputs, array[:, 0] if len(targets) == 1 else array


def _read(read: Callable[..., Array], path: Path, description: Mapping[str, Any]) -> Array:
    try:
        return read(description, path)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path.name} is not text in UTF-8; save it as CSV in UTF-8.") from None
    except ValueError as error:
        raise UsageError(f"{path.name} {error}.") from None
