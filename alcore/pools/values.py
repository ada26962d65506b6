"""Whether a value can be a label of some data, or an input that is generated for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from alcore.errors import did_you_mean
from alcore.protocols import DataInfo

_FLOATS = (float, np.floating)


def class_code(value: Any, info: DataInfo | None) -> Any:
    """Return the integer code of a class; any value that is not a class of the data as it is.

    Parameters
    ----------
    value
        A name of a class, where the data names its classes, or a whole number of any type, a float included.
    info
        What is known about the data.
    """
    if info is None or info.task != "classification":
        return value
    if isinstance(value, str):
        return info.names.index(value) if value in info.names else value
    if isinstance(value, _FLOATS) and float(value).is_integer():
        return int(value)
    return value


def value_fault(value: Any, info: DataInfo | None) -> str | None:
    """Return what is wrong with the value of a label, or None.

    Parameters
    ----------
    value
        A number, an array, or any other value; of a class, its integer code.
    info
        What is known about the data; nothing but NaN, infinity and None is a fault where it is None.
    """
    if type(value) is int and -(2**63) <= value < 2**63:  # what most labels are, without the tensors below
        classes = 0 if info is None or info.task == "regression" else info.classes
        return _no_class(classes) if classes and not 0 <= value < classes else None
    if value is None:
        return "None is not a label; report alcore.Failed where there is none"
    if not_finite(value):
        return "its value is NaN or infinite"
    if info is None:
        return None
    if isinstance(value, str) and info.names:
        return f"{value!r} is not one of the classes; {did_you_mean(value, info.names)}"
    try:
        given = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        if isinstance(value, int):
            return f"{value} is too large"
        wanted = "the code of a class" if info.task == "classification" else "a number"
        return f"a {type(value).__name__} is not a label; it must be {wanted}, or an array"
    if info.task == "regression":
        return None
    if given.is_complex():
        return "it is complex, and the code of a class is a whole number"
    if info.classes and given.is_floating_point() and not torch.equal(given, given.round()):
        return "it is a fraction; the code of a class is a whole number"
    return class_fault(given, info.classes)


def class_fault(codes: torch.Tensor, classes: int) -> str | None:
    """Return what is wrong with integer codes of classes, or None; any are right where `classes` is 0."""
    return None if not classes or bool(((codes >= 0) & (codes < classes)).all()) else _no_class(classes)


def _no_class(classes: int) -> str:
    return f"it is not one of the {classes} classes 0 to {classes - 1}"


def input_fault(item: Any, example: Any) -> str | None:
    """Return in what a generated input differs from the inputs of a pool, or None.

    Compared are types, keys, the number of parts and of dimensions; sizes are not, since they may vary in a pool.

    Parameters
    ----------
    item
        What a query strategy put.
    example
        One input of the pool.
    """
    if isinstance(example, torch.Tensor | np.ndarray):
        if not isinstance(item, torch.Tensor | np.ndarray):
            return f"a {type(item).__name__}, and inputs are tensors or arrays of shape {tuple(example.shape)}"
        if item.ndim != example.ndim:
            return f"of shape {tuple(item.shape)}, and inputs have shape {tuple(example.shape)}"
        return None
    if isinstance(example, Mapping):
        if not isinstance(item, Mapping) or set(item) != set(example):
            return f"not a mapping with the keys {', '.join(map(str, example))}, as inputs are"
        faults = (input_fault(item[key], part) for key, part in example.items())
    elif isinstance(example, tuple | list):
        if not isinstance(item, tuple | list) or len(item) != len(example):
            return f"not a sequence of {len(example)}, as inputs are"
        faults = (input_fault(*both) for both in zip(item, example, strict=True))
    else:
        same = isinstance(item, type(example))
        return None if same else f"a {type(item).__name__}, and inputs are of type {type(example).__name__}"
    return next((fault for fault in faults if fault), None)


def not_finite(value: Any) -> bool:
    """Return whether a value holds NaN or infinity."""
    if isinstance(value, torch.Tensor):
        return (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all())
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "fc" and not bool(np.isfinite(value).all())
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, complex):
        return not (math.isfinite(value.real) and math.isfinite(value.imag))
    if isinstance(value, Mapping):
        return any(map(not_finite, value.values()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(not_finite(getattr(value, field.name, None)) for field in dataclasses.fields(value))
    return isinstance(value, list | tuple) and any(map(not_finite, value))
