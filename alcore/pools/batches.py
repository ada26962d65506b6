"""Batches of any nesting: their tensors, and moving them to the learner's device."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def to_device(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a batch to a device, and cast its floating-point tensors; integer tensors keep their dtype.

    Parameters
    ----------
    batch
        A tensor, or a tuple, named tuple, list, mapping or dataclass of tensors, nested to any depth. An object with a
        method ``to``, such as a batch of graphs, is moved by ``to(device)``, and keeps its types. Anything else is
        returned unchanged.
    device
        The device to move to.
    dtype
        Floating-point type of the result.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else batch.dtype, non_blocking=True)
    if callable(getattr(batch, "to", None)):  # before the rest, since it may be a mapping or a named tuple, too
        moved = batch if device is None else batch.to(device)
        return batch if moved is None else moved
    if isinstance(batch, Mapping):
        return {key: to_device(value, device, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [to_device(value, device, dtype) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _dataclass_to_device(batch, device, dtype)
    return batch


def _dataclass_to_device(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a copy of a dataclass with moved fields; its ``__init__`` is not called, since it may do more."""
    moved = copy.copy(batch)
    for field in dataclasses.fields(batch):
        if hasattr(batch, field.name):
            object.__setattr__(moved, field.name, to_device(getattr(batch, field.name), device, dtype))
    return moved


def first_item(batch: Any) -> Any:
    """Return the first item of a batch of nested tensors."""
    return item_at(batch, 0)


def item_at(batch: Any, place: int) -> Any:
    """Return one item of a batch, in its nesting; leaves that are neither tensors nor arrays are returned whole."""
    return map_leaves(lambda leaf: leaf[place] if isinstance(leaf, torch.Tensor | np.ndarray) else leaf, batch)


def map_leaves(function: Callable[..., Any], batch: Any, *others: Any) -> Any:
    """Return a batch of the same nesting, made of what a function makes of each leaf.

    Parameters
    ----------
    function
        Called with a leaf of `batch`, and with those of `others` at the same place.
    batch, others
        Tuples, named tuples, lists and mappings of leaves, nested alike to any depth; anything else is a leaf.
    """
    if isinstance(batch, torch.Tensor):
        return function(batch, *others)
    if isinstance(batch, Mapping):
        return {key: map_leaves(function, one, *(other[key] for other in others)) for key, one in batch.items()}
    if isinstance(batch, tuple | list):
        made = [map_leaves(function, *parts) for parts in zip(batch, *others, strict=True)]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return function(batch, *others)


def leaves_of(batch: Any) -> list[Any]:
    """List the leaves of a batch, in their order; see `map_leaves`."""
    if isinstance(batch, Mapping):
        return [leaf for value in batch.values() for leaf in leaves_of(value)]
    if isinstance(batch, tuple | list):
        return [leaf for value in batch for leaf in leaves_of(value)]
    return [batch]


def rows_within(batch: Any, limit: int) -> int:
    """Return how many samples like those of a batch have at most `limit` bytes together; at least 1."""
    tensors = [tensor for tensor in tensors_of(batch) if tensor.dim() and len(tensor)]
    return max(1, limit // max(1, sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)))


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """List the tensors of a batch, in their order."""
    return [leaf for leaf in leaves_of(batch) if isinstance(leaf, torch.Tensor)]
