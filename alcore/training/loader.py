"""Batches of a pool, placed on the learner's device, in an order that depends on seed, step and epoch alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from alcore.errors import UsageError
from alcore.pools.batches import tensors_of, to_device
from alcore.randomness import derive_generator

_BLOCK_BYTES = 4 * 2**20


class _EpochOrder(Sampler[int]):
    """Positions of a pool, shuffled or chosen anew each epoch; a generator for an epoch is made from its number."""

    def __init__(
        self, size: int, shuffle: Callable[[int], torch.Generator] | None, epoch: int, shard: tuple[int, int]
    ) -> None:
        self._size, self._shuffle, self.epoch = size, shuffle, epoch
        self._rank, self._ranks = shard
        self.start = 0  # places that an epoch which is taken up in the middle leaves out
        self.choose: Callable[[torch.Generator], torch.Tensor] | None = None
        """Returns the positions of an epoch from its generator, in place of a shuffle of all of them."""
        self._chosen: tuple[int, torch.Tensor] | None = None

    def __len__(self) -> int:
        size = self._size if self.choose is None else len(self.order())
        return -(-size // self._ranks)

    def positions(self) -> torch.Tensor:
        """Return this rank's share of the epoch; its first positions fill up where it can't be shared evenly."""
        order = self.order()
        if self._ranks == 1 or not len(order):
            return order
        return order[torch.arange(self._rank, len(self) * self._ranks, self._ranks) % len(order)]

    def order(self) -> torch.Tensor:
        """Return the positions of the whole epoch, in their order: int64, the same for the same number of epoch."""
        if self._shuffle is None:
            return torch.arange(self._size)
        if self.choose is None:
            return torch.randperm(self._size, generator=self._shuffle(self.epoch))
        if self._chosen is None or self._chosen[0] != self.epoch:
            self._chosen = self.epoch, self.choose(self._shuffle(self.epoch))
        return self._chosen[1]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions()[self.start :].tolist())


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
    shard
        ``(rank, processes)``: the share of each epoch that this loader yields, of equal size for all.
    before_epoch
        Called when an epoch begins.
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
        shard: tuple[int, int] = (0, 1),
        before_epoch: Callable[[], None] | None = None,
        after_batch: Callable[[], None] | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.drop_last = pool, batch_size, drop_last
        self._device, self._dtype = device, dtype
        self._before_epoch, self._after_batch = before_epoch, after_batch
        self._seed, self._workers = (*(seed or (0,)), *(shard[:1] if shard[0] else ())), workers
        self._position = Position()
        shuffle = None if seed is None else lambda epoch: derive_generator(*seed, "order", epoch)
        self.sampler = _EpochOrder(len(pool), shuffle, epoch, shard)
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
                f"drop_last leaves no batch: the pool has {len(pool)} labelled items, "
                + (f"a share of {len(self.sampler)} for each of {shard[1]} ranks, " if shard[1] > 1 else "")
                + f"fewer than the batch size of {batch_size}. Use a smaller batch_size, or drop_last=False."
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
        if self._before_epoch is not None:
            self._before_epoch()
        position = self._position
        for batch in self._blocks() if self._items is None else self._single_items(self._items):
            yield batch
            position.batches += 1
            if self._after_batch is not None:
                self._after_batch()
        self._position = Position()
        self.sampler.epoch += 1

    def position(self, *, at_end: bool = False) -> dict[str, Any] | None:
        """Return where in its epoch the loader is, for `resume`.

        Parameters
        ----------
        at_end
            Give the place behind the last batch.

        Returns
        -------
        dict or None
            ``batches``, how many are done, ``start`` and ``rows``, which block comes next, and ``rest``, what is left
            of the block at hand: it is kept because a pool may augment what it returns. None where a batch is of a
            type that can't be stored.
        """
        if at_end:
            return {"batches": len(self), "start": len(self.sampler), "rows": self.batch_size, "rest": None}
        here = self._position
        rest = None if here.block is None else _rows_from(here.block, (here.batches - here.first) * self.batch_size)
        if rest is not None and not _is_plain(rest):
            return None
        return {"batches": here.batches, "start": here.start, "rows": here.rows, "rest": rest}

    def resume(self, position: Mapping[str, Any]) -> None:
        """Go on where `position` was taken: the next iteration is the rest of that epoch."""
        done = position["batches"]
        self._position = Position(done, position["start"], position["rows"], position["rest"], done)

    def _single_items(self, items: DataLoader[Any]) -> Iterator[Any]:
        # workers are seeded from this generator, so an epoch doesn't depend on those before it
        items.generator = derive_generator(*self._seed, "workers", self.sampler.epoch)
        done = self._position.batches
        self.sampler.start = 0 if self._workers else done * self.batch_size
        if self.sampler.start < len(self.sampler):
            # what a worker drew for earlier batches matters to later ones, so that it fetches them again
            for batch in itertools.islice(items, done if self._workers else 0, None):
                yield to_device(batch, self._device, self._dtype)
        self.sampler.start = 0

    def _blocks(self) -> Iterator[Any]:
        here = self._position
        order = self.sampler.positions()
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        if here.block is not None and tensors_of(here.block)[0].shape[0]:
            here.block = to_device(here.block, self._device, self._dtype)
            yield from _split(here.block, self.batch_size)
        rows = here.rows or self.batch_size
        while here.start < len(order):
            block = self.dataset.batch(order[here.start : here.start + rows])
            here.start += rows
            if rows == self.batch_size:  # the first block is one batch, and tells how large a batch is
                size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(block))
                rows *= max(1, _BLOCK_BYTES // max(size, 1))
            here.rows, here.block, here.first = rows, to_device(block, self._device, self._dtype), here.batches
            yield from _split(here.block, self.batch_size)


@dataclasses.dataclass
class Position:
    """Where in an epoch a loader is.

    Parameters
    ----------
    batches
        How many batches are done.
    start, rows
        Where the next block begins in the order of the epoch, and how many rows it takes; 0 before the first.
    block, first
        The block at hand, and the number of its first batch.
    """

    batches: int = 0
    start: int = 0
    rows: int = 0
    block: Any = None
    first: int = 0


def _rows_from(block: Any, start: int) -> Any:
    if isinstance(block, Mapping):
        return {key: _rows_from(value, start) for key, value in block.items()}
    if type(block) in (tuple, list):
        return type(block)(_rows_from(value, start) for value in block)
    return block[start:] if isinstance(block, torch.Tensor) else block


def _is_plain(block: Any) -> bool:
    """Tell whether a block is of tensors in dicts, lists and tuples alone, so that it comes back as it was."""
    if isinstance(block, Mapping):
        return type(block) is dict and all(map(_is_plain, block.values()))
    if type(block) in (tuple, list):
        return all(map(_is_plain, block))
    return isinstance(block, torch.Tensor)


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
