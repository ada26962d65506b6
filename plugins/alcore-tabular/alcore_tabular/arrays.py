"""Reading inputs and targets from the arrays of an NPZ file, without unpickling anything."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile

from alcore.errors import UsageError
from alcore_tabular.messages import nearest, setting
from alcore_tabular.raw_table import Array, RawTable
from alcore_tabular.standalone import array_names

_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path, inputs: str, target: str, cost: str | None = None) -> RawTable:
    """Read two arrays of an NPZ file, and a third one if labels have a cost.

    Parameters
    ----------
    path
        The file.
    inputs
        Name of the array of inputs: numeric, shape (N, ...); each input is flattened.
    target
        Name of the array of targets: numbers or strings, shape (N,) or (N, 1).
    cost
        Name of the array of costs: numbers, shape (N,); it becomes the last column of numbers.

    Raises
    ------
    UsageError
        For a file that is not NPZ, arrays that are missing or have Python objects, and shapes that don't fit.
    """
    if inputs == target:
        raise UsageError(f"{path.name}: {inputs!r} is named as inputs and as target; they must be two arrays.")
    with path.open("rb") as stream, _open(path, stream) as archive:
        features = _array(path, archive, inputs, "inputs")
        answers = _array(path, archive, target, "target")
        costs = None if cost is None else _array(path, archive, cost, "cost")
    numbers, names = _numbers(path, inputs, features), array_names(inputs, features.shape[1:])
    if answers.ndim == 2 and answers.shape[1] == 1:
        answers = answers[:, 0]
    if answers.ndim != 1:
        raise UsageError(
            f"{path.name}: array {target!r} has the shape {answers.shape}; one target a sample is needed, "
            "shape (N,). Turn one-hot rows into class numbers with y.argmax(axis=1)."
        )
    if len(answers) != len(features):
        raise UsageError(f"{path.name}: {len(features)} rows in {inputs!r} but {len(answers)} in {target!r}.")
    if cost is not None and costs is not None:
        if costs.shape != (len(features),):
            raise UsageError(f"{path.name}: array {cost!r} has the shape {costs.shape}; one cost a sample is needed.")
        numbers, names = np.hstack([numbers, _numbers(path, cost, costs)]), [*names, cost]
    return RawTable(
        file=path.name,
        numbers=numbers,
        number_names=names,
        texts=np.empty((len(numbers), 0), dtype=object),
        text_names=[],
        target=_cells(path, target, answers),
        target_name=target,
        origin=np.arange(len(numbers)),
        describe=lambda row, _: f"row {row}, counted from 0",
        shape=features.shape[1:],
    )


def read_inputs(path: Path, inputs: str) -> Array:
    """Read the array of inputs of an NPZ file, which need not hold targets.

    Raises
    ------
    UsageError
        For a file that is not NPZ, and for an array that is missing, has Python objects or no numbers.
    """
    with path.open("rb") as stream, _open(path, stream) as archive:
        features = _array(path, archive, inputs)
    _numbers(path, inputs, features)
    return features


def _open(path: Path, stream: BinaryIO) -> NpzFile:
    try:
        archive = np.load(stream, allow_pickle=False)
    except _DAMAGED:
        archive = None
    if not isinstance(archive, NpzFile):
        raise UsageError(
            f"{path.name} is not an NPZ file, or is damaged. Write it with numpy.savez(path, X=..., y=...)."
        )
    return archive


def _array(path: Path, archive: Mapping[str, Any], name: str, parameter: str | None = None) -> Array:
    if name not in archive:
        remedy = "The model needs it" if parameter is None else f"Name one with {setting(parameter, 'ARRAY')}"
        raise UsageError(f"{path.name}: there is no array {name!r}; {nearest(name, archive)}. {remedy}.")
    try:
        array = archive[name]
    except _DAMAGED as error:
        raise UsageError(
            f"{path.name}: array {name!r} can't be read: {error}. An array of Python objects is a pickle, "
            "which could run code, and is never opened; save it with a plain type, for instance "
            "y.astype(str) or X.astype('float32')."
        ) from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path.name}: {name!r} is not an array. Write the file with numpy.savez(path, X=..., y=...).")
    return array


def _numbers(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind not in "biuf":
        raise UsageError(
            f"{path.name}: array {name!r} has text where numbers belong: its type is {array.dtype}. Inputs "
            "must be numbers; for columns of text, save the table as CSV, where categories are encoded."
        )
    if array.ndim == 0 or 0 in array.shape:
        raise UsageError(f"{path.name}: array {name!r} has the shape {array.shape}; (N, features) is needed.")
    single = np.result_type(array.dtype, np.float32) == np.float32
    return array.reshape(len(array), -1).astype(np.float32 if single else np.float64)


def _cells(path: Path, name: str, array: Array) -> list[str | None]:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path.name}: array {name!r} has bytes that are not UTF-8 text ({error}).") from None
    if array.dtype.kind not in "biufU":
        raise UsageError(f"{path.name}: array {name!r} has the type {array.dtype}; numbers or strings are needed.")
    if array.dtype.kind == "f":
        return [None if np.isnan(value) else str(value) for value in array]
    return [str(value).strip() or None for value in array.tolist()]
