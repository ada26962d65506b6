"""Batches of a loader that is not alcore's, put where the learner is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from alcore.pools import to_device
from alcore.training import BatchLoader


def placed(batches: Iterable[Any], device: torch.device | None, dtype: torch.dtype | None) -> Iterable[Any]:
    """Return batches that are where the learner is; alcore's own loaders put them there themselves."""
    if isinstance(batches, BatchLoader) or (device is None and dtype is None):
        return batches
    return _Placed(batches, device, dtype)


class _Placed:
    """Batches of a loader that doesn't place them itself."""

    def __init__(self, batches: Iterable[Any], device: Any, dtype: Any) -> None:
        self._batches, self._device, self._dtype = batches, device, dtype

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Any:
        return (to_device(batch, self._device, self._dtype) for batch in self._batches)
