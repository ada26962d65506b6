"""Values as text, to compare them to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch


def text_of(value: Any) -> str:
    """Return text that is equal for equal values: NaN equals NaN, and 0.0 differs from -0.0 and from 0.

    Tensors and arrays are told apart by type, shape and content; mappings by their items, in any order.

    Raises
    ------
    TypeError
        For an object of any other type.
    """
    match value:
        case torch.Tensor():
            whole = value.detach().cpu().clone(memory_format=torch.contiguous_format)  # one element may keep a stride
            raw = whole.reshape(-1).view(torch.uint8).numpy()
            return f"tensor({value.dtype}, {tuple(value.shape)}, {hashlib.sha256(raw.tobytes()).hexdigest()})"
        case np.ndarray() | np.generic() if value.dtype != object:
            return f"array({value.dtype}, {value.shape}, {hashlib.sha256(value.tobytes()).hexdigest()})"
        case Mapping():
            return f"{{{', '.join(sorted(f'{key!r}: {text_of(one)}' for key, one in value.items()))}}}"
        case Set():
            return f"{{{', '.join(sorted(map(text_of, value)))}}}"
        case Sequence() if not isinstance(value, str | bytes):
            return f"{type(value).__name__}({', '.join(map(text_of, value))})"
        case None | bool() | int() | float() | str() | bytes() | np.generic():
            return repr(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}; compared can be tensors, arrays, texts and containers.")


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal to the last bit, NaN included."""
    return text_of(one) == text_of(other)
