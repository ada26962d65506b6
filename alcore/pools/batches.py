"""Batches of any nesting: their tensors, and moving them to the learner's device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def to_device(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a batch to a device, and cast its floating-point tensors; integer tensors keep their dtype.

    Parameters
    ----------
    batch
        A tensor, or a tuple, named tuple, list or mapping of tensors, nested to any depth; anything else is returned
        unchanged.
    device
        The device to move to.
    dtype
        Floating-point type of the result.
    """
    return map_leaves(
        lambda one: (
            one.to(device, dtype if one.is_floating_point() else one.dtype, non_blocking=True)
            if isinstance(one, torch.Tensor)
            else one
        ),
        batch,
    )


def first_item(batch: Any) -> Any:
    """Return the first item of a batch of nested tensors."""
    return item_at(batch, 0)


def item_at(batch: Any, place: int) -> Any:
    """Return one item of a batch, in its nesting; leaves that are neither tensors nor arrays are returned whole."""
    return map_leaves(lambda one: one[place] if isinstance(one, torch.Tensor | np.ndarray) else one, batch)


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
