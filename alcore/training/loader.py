"""Batches of a pool on the learner's device, in an order that depends on seed, step and epoch alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from alcore.errors import UsageError
from alcore.pools.batches import map_leaves, rows_within, tensors_of, to_device
from alcore.pools.offers import has_batch, plain_items
from alcore.randomness import derive_generator

_BLOCK_BYTES = 4 * 2**20
_ORDERED_ROWS = 4096  # in a batch of a pool that is fetched whole
_FIRST_ROWS = 64  # fetched to learn how large samples are
_ORDERED_BYTES = 16 * 2**20  # of such a batch; the learner's layers take a multiple of it


class EpochOrder(Sampler[int]):
    """Positions of a pool, shuffled or chosen anew each epoch by a generator that is derived from the epoch's number.

    Parameters
    ----------
    size
        Number of items.
    generator_for
        Returns the generator of an epoch; None keeps the order of the pool.
    epoch
        Number of the first epoch.
    shard
        ``(rank, ranks)``: this rank's share of each epoch.
    choose
        Returns the positions of an epoch from its generator, in place of a shuffle of all of them.
    """

    def __init__(
        self,
        size: int,
        generator_for: Callable[[int], torch.Generator] | None,
        epoch: int = 0,
        shard: tuple[int, int] = (0, 1),
        choose: Callable[[torch.Generator], torch.Tensor] | None = None,
    ) -> None:
        self._size, self._generator_for, self.epoch = size, generator_for, epoch
        self._rank, self._ranks = shard
        self._choose = choose
        self._chosen: tuple[int, torch.Tensor] | None = None

    def __len__(self) -> int:
        size = self._size if self._choose is None else len(self._whole())
        return -(-size // self._ranks)

    def positions(self) -> torch.Tensor:
        """Return this rank's share of the epoch: int64; the first positions fill up an uneven last round."""
        order = self._whole()
        if self._ranks == 1 or not len(order):
            return order
        return order[torch.arange(self._rank, len(self) * self._ranks, self._ranks) % len(order)]

    def _whole(self) -> torch.Tensor:
        """Return the positions of the whole epoch, in their order: int64."""
        if self._generator_for is None:
            return torch.arange(self._size)
        if self._choose is None:
            return torch.randperm(self._size, generator=self._generator_for(self.epoch))
        if self._chosen is None or self._chosen[0] != self.epoch:
            self._chosen = self.epoch, self._choose(self._generator_for(self.epoch))
        return self._chosen[1]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions().tolist())


class BatchLoader:
    """An iterable over the batches of one epoch; iterating again is the next epoch.

    Parameters
    ----------
    pool
        Labeled items. One with ``batch(positions)`` is fetched several batches at a time and split; any
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
        Leave out a last batch that is smaller.
    collate_fn
        Makes a batch out of items; where it is given, items are fetched one by one.
    workers
        Processes that fetch items.
    max_bytes
        Batches of larger samples, of a pool that is fetched whole, have fewer of them.
    shard
        ``(rank, ranks)``: the share of each epoch that this loader yields, of equal size for all.
    choose
        Returns the positions of an epoch, int64 (P,), from its generator; a shuffle of all where it is None.
    before_epoch
        Called when an epoch begins.
    before_batch
        Called before each batch; what it raises ends the epoch.
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
        max_bytes: int | None = None,
        shard: tuple[int, int] = (0, 1),
        choose: Callable[[torch.Generator], torch.Tensor] | None = None,
        before_epoch: Callable[[], None] | None = None,
        before_batch: Callable[[], None] | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.drop_last, self.dtype = pool, batch_size, drop_last, dtype
        self._device, self._max_bytes = device, max_bytes
        self._before_epoch, self._before_batch = before_epoch, before_batch
        self._seed = (*(seed or (0,)), *(shard[:1] if shard[0] else ()))
        generator_for = None if seed is None else lambda epoch: derive_generator(*seed, "order", epoch)
        self.sampler = EpochOrder(len(pool), generator_for, epoch, shard, choose)
        self._items: DataLoader[Any] | None = None
        if collate_fn is not None or not has_batch(pool):
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
                f"drop_last leaves no batch: the pool has {len(pool)} labeled items, "
                + (f"a share of {len(self.sampler)} for each of {shard[1]} ranks, " if shard[1] > 1 else "")
                + f"fewer than the batch size of {batch_size}. Use a smaller batch_size, or drop_last=False."
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that the next iteration is."""
        self.sampler.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        """Go through one epoch."""
        if self._before_epoch is not None:
            self._before_epoch()
        for batch in self._split_blocks() if self._items is None else self._single_items(self._items):
            if self._before_batch is not None:
                self._before_batch()
            yield batch
        self.sampler.epoch += 1

    def _single_items(self, items: DataLoader[Any]) -> Iterator[Any]:
        # workers are seeded from this generator, so an epoch doesn't depend on those before it
        items.generator = derive_generator(*self._seed, "workers", self.sampler.epoch)
        for batch in items:
            yield to_device(batch, self._device, self.dtype)

    def _split_blocks(self) -> Iterator[Any]:
        order = self.sampler.positions()
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        if not len(order):
            return
        block, start, size = self._first_block(order)
        batch = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(block)) * size // start
        rows = size * max(1, _BLOCK_BYTES // max(batch, 1))
        while True:
            yield from _split(to_device(block, self._device, self.dtype), size)
            if start >= len(order):
                return
            block = self.dataset.batch(order[start : start + rows])
            start += rows

    def _first_block(self, order: torch.Tensor) -> tuple[Any, int, int]:
        """Return the first block, its number of samples, and the size of a batch, which depends on that of samples."""
        size, few = self.batch_size, min(self.batch_size, _FIRST_ROWS)
        if self._max_bytes is None:
            return self.dataset.batch(order[:size]), len(order[:size]), size
        block = self.dataset.batch(order[:few])
        size = min(size, 1 << (rows_within(block, self._max_bytes).bit_length() - 1))
        if size <= few or len(order) <= few:
            return block, len(order[:few]), size
        rest = self.dataset.batch(order[few:size])
        whole = map_leaves(
            lambda first, more: torch.cat([first, more]) if isinstance(first, torch.Tensor) else first, block, rest
        )
        return whole, len(order[:size]), size


class LoaderFactory:
    """Makes the loaders of a run, which differ in pool and order alone.

    Parameters
    ----------
    batch_size, drop_last, collate_fn, workers, device, dtype, before_batch
        As in `BatchLoader`; `drop_last` concerns shuffled loaders alone.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        drop_last: bool,
        collate_fn: Callable[[list[Any]], Any] | None,
        workers: int,
        device: torch.device,
        dtype: torch.dtype,
        before_batch: Callable[[], None],
    ) -> None:
        self._batch_size, self._drop_last = batch_size, drop_last
        self._make = functools.partial(
            BatchLoader,
            collate_fn=collate_fn,
            workers=workers,
            device=device,
            dtype=dtype,
            before_batch=before_batch,
        )

    def shuffled(
        self,
        pool: Any,
        seed: tuple[Any, ...],
        epoch: int,
        shard: tuple[int, int],
        choose: Callable[[torch.Generator], torch.Tensor] | None = None,
    ) -> BatchLoader:
        """Return the loader of a training; parameters as in `BatchLoader`."""
        return self._make(
            pool, self._batch_size, seed=seed, epoch=epoch, shard=shard, choose=choose, drop_last=self._drop_last
        )

    def ordered(self, pool: Any, before_epoch: Callable[[], None] | None = None) -> BatchLoader:
        """Return a loader in the order of the pool, in batches of the training's size; items are not augmented."""
        return self._make(plain_items(pool), self._batch_size, before_epoch=before_epoch)

    def large_batches(self, pool: Any) -> BatchLoader:
        """Return a loader in the order of the pool, in batches of up to 4096 and 16 MiB where it is fetched whole.

        Items are not augmented.
        """
        pool = plain_items(pool)
        rows = _ORDERED_ROWS if has_batch(pool) else self._batch_size
        return self._make(pool, rows, max_bytes=_ORDERED_BYTES)


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
