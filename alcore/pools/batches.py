"""Put batches of any nesting where the learner is, and put the learner in eval mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def place(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a batch to a device, casting floating-point tensors; integer tensors keep their dtype.

    Parameters
    ----------
    batch
        A tensor, or a tuple, named tuple, list or mapping of such, to any depth; anything else is returned
        as it is.
    device
        Where to.
    dtype
        Floating-point type.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else batch.dtype, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: place(value, device, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(place(value, device, dtype) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)([place(value, device, dtype) for value in batch])
    return batch


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """List the tensors in a batch, in their order."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [tensor for value in batch.values() for tensor in tensors_of(value)]
    if isinstance(batch, tuple | list):
        return [tensor for value in batch for tensor in tensors_of(value)]
    return []


@contextlib.contextmanager
def evaluating(learner: Any) -> Iterator[None]:
    """Put a module in eval mode without gradients, and give each of its parts its mode back afterwards."""
    with eval_mode(learner), torch.no_grad():
        yield


@contextlib.contextmanager
def eval_mode(learner: Any) -> Iterator[None]:
    """Put a module in eval mode, and give each of its parts its mode back afterwards."""
    modules = learner.modules() if isinstance(learner, torch.nn.Module) else ()
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def place_learner(learner: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a module to its device and floating-point type; anything else is left as it is."""
    return learner.to(device=device, dtype=dtype) if isinstance(learner, torch.nn.Module) else learner
