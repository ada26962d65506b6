"""Batches of any nesting: their tensors, and moving them to the learner's device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    if isinstance(batch, torch.Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else batch.dtype, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device, dtype) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)([to_device(value, device, dtype) for value in batch])
    return batch


def first_item(batch: Any) -> Any:
    """Return the first item of a batch of nested tensors."""
    if isinstance(batch, Mapping):
        return {key: first_item(one) for key, one in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(first_item, batch))
    return type(batch)(map(first_item, batch)) if isinstance(batch, tuple | list) else batch[0]


def rows_within(batch: Any, limit: int) -> int:
    """Return how many samples like those of a batch have at most `limit` bytes together; at least 1."""
    tensors = [tensor for tensor in tensors_of(batch) if tensor.dim() and len(tensor)]
    return max(1, limit // max(1, sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)))


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """List the tensors of a batch, in their order."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [tensor for value in batch.values() for tensor in tensors_of(value)]
    if isinstance(batch, tuple | list):
        return [tensor for value in batch for tensor in tensors_of(value)]
    return []
