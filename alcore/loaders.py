"""Batches of a pool, placed on the learner's device, in an order that depends on seed, step and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from alcore.errors import UsageError
from alcore.placement import place, tensors_of
from alcore.randomness import derive_generator

_BLOCK_BYTES = 4 * 2**20


class _EpochOrder(Sampler[int]):
    """Positions of a pool, shuffled anew each epoch; a generator for an epoch is made from its number."""

    def __init__(self, size: int, shuffle: Callable[[int], torch.Generator] | None, epoch: int) -> None:
        self._size, self._shuffle, self.epoch = size, shuffle, epoch

    def __len__(self) -> int:
        return self._size

    def positions(self) -> torch.Tensor:
        if self._shuffle is None:
            return torch.arange(self._size)
        return torch.randperm(self._size, generator=self._shuffle(self.epoch))

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


class BatchLoader:
    """An iterable over the batches of one epoch; iterating again is the next epoch.

    Parameters
    ----------
    pool
        Labelled items. One with ``batch(positions)`` is fetched several batches at a time and split; any
        other goes through `torch.utils.data.DataLoader`.
    batch_size
        Items in a batch.
    device, dtype
        Where batches are put, and the type of their floating-point tensors.
    seed
        What the order is derived from; None keeps the order of the pool.
    epoch
        Number of the first epoch.
    drop_last
        Leave out a last batch that is too small.
    collate_fn
        Makes a batch out of items; where it is given, items are fetched one by one.
    workers
        Processes that fetch items.
    after_batch
        Called when a batch is done with; what it raises ends the epoch.
    """

    def __init__(
        self,
        pool: Any,
        batch_size: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        seed: tuple[Any, ...] | None = None,
        epoch: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        workers: int = 0,
        after_batch: Callable[[], None] | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.drop_last = pool, batch_size, drop_last
        self._device, self._dtype, self._after_batch = device, dtype, after_batch
        self._seed = seed or (0,)
        shuffle = None if seed is None else lambda epoch: derive_generator(*seed, "order", epoch)
        self.sampler = _EpochOrder(len(pool), shuffle, epoch)
        self._items: DataLoader[Any] | None = None
        if collate_fn is not None or not callable(getattr(pool, "batch", None)):
            self._items = DataLoader(
                pool,
                batch_size,
                sampler=self.sampler,
                drop_last=drop_last,
                collate_fn=collate_fn,
                num_workers=workers,
                pin_memory=device.type == "cuda",
            )
        if drop_last and len(pool) and not len(self):
            raise UsageError(
                f"drop_last leaves no batch: the pool has {len(pool)} labelled items, fewer than the batch size of "
                f"{batch_size}. Use a smaller batch_size, or drop_last=False."
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that the next iteration is."""
        self.sampler.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        """Go through one epoch."""
        for batch in self._blocks() if self._items is None else self._single_items(self._items):
            yield batch
            if self._after_batch is not None:
                self._after_batch()
        self.sampler.epoch += 1

    def _single_items(self, items: DataLoader[Any]) -> Iterator[Any]:
        # workers are seeded from this generator, so an epoch doesn't depend on those before it
        items.generator = derive_generator(*self._seed, "workers", self.sampler.epoch)
        for batch in items:
            yield place(batch, self._device, self._dtype)

    def _blocks(self) -> Iterator[Any]:
        order = self.sampler.positions()
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        start, rows = 0, self.batch_size
        while start < len(order):
            block = self.dataset.batch(order[start : start + rows])
            start += rows
            if rows == self.batch_size:  # the first block is one batch, and tells how large a batch is
                size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(block))
                rows *= max(1, _BLOCK_BYTES // max(size, 1))
            yield from _split(place(block, self._device, self._dtype), self.batch_size)


def _split(block: Any, size: int) -> Iterator[Any]:
    """Cut a block of nested tensors into batches of the same nesting."""
    if isinstance(block, torch.Tensor):
        return iter(torch.split(block, size))
    if isinstance(block, Mapping):
        parts = [_split(value, size) for value in block.values()]
        return (dict(zip(block, batch, strict=True)) for batch in zip(*parts, strict=True))
    if isinstance(block, tuple | list):
        batches = zip(*(_split(value, size) for value in block), strict=True)
        if hasattr(block, "_fields"):
            return (type(block)(*batch) for batch in batches)
        return map(type(block), batches)
    raise UsageError(
        f"batch(positions) returned a {type(block).__name__}; it must return tensors, or tuples or dicts of them."
    )
