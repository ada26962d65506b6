"""Labeled samples as arrays for scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.pools import has_batch, labeled_ids, tensors_of, to_device

Order = Literal["labeled", "pool"]
AnyOrder = Literal["labeled", "pool", "labelled"]
"""An `Order`, or the old spelling of ``"labeled"``, which experiment files and checkpoints of version 0.1 hold."""


class Arrays(NamedTuple):
    """Rows (N, D) and targets (N,) or (N, T) of N labeled samples."""

    rows: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]

    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify the values."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def as_rows(inputs: Any) -> np.ndarray[Any, Any]:
    """Return inputs with one row for each sample: shape (B, D), for inputs of any shape."""
    tensors = tensors_of(inputs)
    if len(tensors) != 1:
        raise UsageError(
            f"scikit-learn takes one array of inputs, and this data gives {len(tensors)} tensors a sample; join them "
            "in the pool."
        )
    rows = tensors[0].detach().cpu()
    rows = rows.float() if rows.dtype is torch.bfloat16 else rows  # NumPy has no bfloat16
    return rows.flatten(1).numpy() if rows.dim() > 1 else rows[:, None].numpy()


def order_of(order: AnyOrder) -> Order:
    """Return an order by its name of now."""
    return "labeled" if order == "labelled" else order


def labeled_arrays(pool: Any, order: Order, dtype: torch.dtype, rows: int | None = None) -> Arrays:
    """Return the labeled samples of a pool.

    Parameters
    ----------
    pool
        With ``batch(positions)``, or any sequence of (input, target).
    order
        ``"labeled"`` keeps the order in which they were labeled; ``"pool"`` sorts them by id.
    dtype
        Floating-point type of inputs.
    rows
        Number of samples, in the order in which they were labeled; all if None.
    """
    count = len(pool) if rows is None else rows
    if not count:
        return Arrays(np.empty((0, 0)), np.empty(0))
    positions = torch.arange(count)
    if order == "pool":
        ids = labeled_ids(pool)
        if ids is None:
            raise UsageError(
                f"order='pool' needs a pool with labeled_ids, the ids of its labeled samples, and "
                f"{type(pool).__name__} has none; use order='labeled'."
            )
        positions = torch.argsort(ids[:count])
    batch = pool.batch(positions) if has_batch(pool) else _items(pool, positions)
    inputs, targets = to_device(batch, torch.device("cpu"), dtype)
    return Arrays(as_rows(inputs), torch.as_tensor(targets).detach().numpy())


class JoinedBatches:
    """Batches of (inputs, targets), joined to a pool of labeled samples.

    Parameters
    ----------
    batches
        In training order; at least one.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        pairs = list(batches)
        self._inputs = torch.cat([torch.from_numpy(as_rows(inputs)) for inputs, _ in pairs])
        self._targets = torch.cat([tensors_of(targets)[0].cpu() for _, targets in pairs])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._targets)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets at these positions."""
        return self._inputs[positions], self._targets[positions]


def class_codes(targets: np.ndarray[Any, Any], classes: int) -> np.ndarray[Any, Any]:
    """Return targets as class codes: int64 (N,).

    Parameters
    ----------
    targets
        Shape (N,) or (N, 1), integers of any type.
    classes
        Number of classes; 0 if it is not known.

    Raises
    ------
    UsageError
        If one is not an integer, or not one of the classes.
    """
    flat = targets.reshape(-1) if targets.ndim == 1 or targets.shape[1:] == (1,) else None
    if flat is None:
        raise UsageError(f"a classifier takes one class a sample, and the targets have shape {targets.shape}.")
    codes = flat.astype(np.int64)
    if not np.array_equal(codes, flat) or (len(codes) and (np.min(codes) < 0 or np.max(codes) >= (classes or 2**31))):
        raise UsageError(
            f"targets must be class codes, integers from 0 to {classes - 1 if classes else 'the number less one'}."
        )
    return codes


def _items(pool: Any, positions: torch.Tensor) -> Any:
    return torch.utils.data.default_collate([pool[position] for position in positions.tolist()])
