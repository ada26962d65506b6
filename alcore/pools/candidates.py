"""The samples that may be asked for: unlabeled, and not requested yet."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.pools.tensor_pool import TensorPool, is_choosable

_WINDOW = 2**18  # ids that a large pool lists in one call: 2 MiB, which fit in a processor cache
_WORTH_LISTING = 2**11  # listing so many ids takes less time than asking for one of them


class Candidates:
    """The ids of a pool's unlabeled samples, without those that were requested.

    Parameters
    ----------
    pool
        The pool to choose from. Of one without ``unlabeled_indices``, only the requested ids are known.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.known = is_choosable(pool)
        """Whether the pool can list its unlabeled samples."""
        self._windowed = self.known and lists_windows(pool)
        self._masked: set[int] = set()
        self._sorted = torch.empty(0, dtype=torch.int64)  # the masked ids, without those in _new
        self._new: list[int] = []

    def mask(self, samples: Iterable[int]) -> None:
        """Leave these samples out: they were requested."""
        new = set(samples) - self._masked
        self._masked |= new
        self._new += new

    def unmask(self, samples: Iterable[int]) -> None:
        """Include these samples again: they were not requested after all."""
        self._masked -= set(samples)
        self._sorted, self._new = torch.empty(0, dtype=torch.int64), list(self._masked)

    def waiting(self) -> list[int]:
        """Return the requested samples that the pool lists as unlabeled, ascending."""
        return [sample for sample in sorted(self._masked) if self._is_unlabeled(sample)]

    def __contains__(self, sample: int) -> bool:
        """Return whether a sample may be asked for."""
        return sample not in self._masked and 0 <= sample < 2**63 and self._is_unlabeled(sample)

    def among(self, samples: Iterable[int]) -> set[int]:
        """Return those of some samples that may be asked for; together they are looked up faster than one by one."""
        possible = sorted({sample for sample in samples if sample not in self._masked and 0 <= sample < 2**63})
        if not self.known or not possible:
            return set(possible)
        if not self._windowed:
            return _in_both(torch.tensor(possible), self._ascending(self._pool.unlabeled_indices()))
        start, stop = possible[0], min(possible[-1] + 1, self._pool.total)
        if stop - start > _WORTH_LISTING * len(possible):
            return {sample for sample in possible if self._is_unlabeled(sample)}
        wanted, unlabeled = torch.tensor(possible), set()
        for first in range(start, stop, _WINDOW):
            last = min(first + _WINDOW, stop)
            low, high = torch.searchsorted(wanted, torch.tensor([first, last])).tolist()
            if low < high:
                unlabeled |= _in_both(wanted[low:high], self._ascending(self._pool.unlabeled_indices(first, last)))
        return unlabeled

    def _is_unlabeled(self, sample: int) -> bool:
        if not self.known:
            return True
        if self._windowed:
            return sample < self._pool.total and len(self._pool.unlabeled_indices(sample, sample + 1)) == 1
        return bool(_in_both(torch.tensor([sample]), self._ascending(self._pool.unlabeled_indices())))

    def chunks(self, size: int, step: int | None = None) -> Iterator[torch.Tensor]:
        """Yield the ids in ascending order: int64 tensors of `size`, the last one smaller.

        Parameters
        ----------
        size
            Of a chunk.
        step
            Yield only the ids that the pool offers in this step (`alcore.protocols.PoolWindows.step_range`).
        """
        kept: list[torch.Tensor] = []
        count = 0
        for ids in self.listed(step):
            kept.append(self._without_masked(ids))
            count += len(kept[-1])
            if count >= size:
                whole = torch.cat(kept) if len(kept) > 1 else kept[0]
                for start in range(0, count - size + 1, size):
                    yield whole[start : start + size]
                kept = [whole[count - count % size :]] if count % size else []
                count %= size
        if count:
            yield torch.cat(kept) if len(kept) > 1 else kept[0]

    def any(self) -> bool:
        """Return whether a candidate is left."""
        return next(self.chunks(1), None) is not None

    def listed(self, step: int | None = None) -> Iterator[torch.Tensor]:
        """Yield the ids that the pool lists, requested ones too; in windows where it lists them so, else whole."""
        if not self.known:
            raise UsageError(
                f"{type(self._pool).__name__} can't be chosen from by this query strategy: the pool needs "
                "unlabeled_indices() -> LongTensor and inputs(ids) -> batch. Add both, use alcore.TensorPool, "
                "or write a query strategy that uses the pool directly."
            )
        if not self._windowed:
            yield self._ascending(self._pool.unlabeled_indices())
            return
        first, end = (0, self._pool.total) if step is None else listed_range(self._pool, step)
        for start in range(first, end, _WINDOW):
            yield self._ascending(self._pool.unlabeled_indices(start, min(start + _WINDOW, end)))

    def _ascending(self, given: Any) -> torch.Tensor:
        """Return ids if they are int64, of one dimension and ascending, else raise `UsageError`."""
        ids: torch.Tensor = given
        if type(self._pool) is TensorPool:  # its ids need no check
            return ids
        fit = isinstance(given, torch.Tensor) and ids.dtype == torch.int64 and ids.dim() == 1
        if not fit or (len(ids) > 1 and not (ids[1:] > ids[:-1]).numpy().all()):
            what = (
                f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
            )
            raise UsageError(
                f"{type(self._pool).__name__}.unlabeled_indices() returned {what}; it must return the ids as an int64 "
                "tensor of shape (U,), ascending, each once."
            )
        return ids

    def _without_masked(self, ids: torch.Tensor) -> torch.Tensor:
        if not self._masked or not len(ids):
            return ids
        if self._new:
            self._sorted, self._new = _merged(self._sorted, torch.tensor(self._new, dtype=torch.int64)), []
        low, high = torch.searchsorted(self._sorted, torch.stack([ids[0], ids[-1] + 1])).tolist()
        if low == high:
            return ids
        taken = self._sorted[low:high]
        places = torch.searchsorted(ids, taken)
        keep = np.ones(len(ids), dtype=np.bool_)  # numpy is several times as fast as torch here
        keep[places[ids[places] == taken].numpy()] = False
        return torch.from_numpy(ids.numpy()[keep])


def total_of(pool: Any) -> int | None:
    """Return how many samples a pool has, labeled or not; None where it doesn't say."""
    total = getattr(pool, "total", None)
    return total if isinstance(total, int) else None


def lists_windows(pool: Any) -> bool:
    """Return whether a pool lists its unlabeled ids in windows, by ``unlabeled_indices(start, stop)``."""
    return hasattr(pool, "total") and _takes_two(pool.unlabeled_indices)


def offers_parts(pool: Any) -> bool:
    """Return whether a pool offers a part of its samples in each step (``step_range``)."""
    return callable(getattr(pool, "step_range", None)) and lists_windows(pool)


def listed_range(pool: Any, step: int) -> tuple[int, int]:
    """Return the ids ``range(start, stop)`` that a pool that lists windows offers in a step.

    Raises
    ------
    UsageError
        If ``step_range`` returns something else.
    """
    own = getattr(pool, "step_range", None)
    if not callable(own):
        return 0, pool.total
    given = own(step)
    if (
        not isinstance(given, tuple)
        or len(given) != 2
        or not all(isinstance(bound, int) for bound in given)
        or not 0 <= given[0] <= given[1] <= pool.total
    ):
        raise UsageError(
            f"{type(pool).__name__}.step_range({step}) returned {given!r}; it must return (start, stop), two integers "
            f"with 0 <= start <= stop <= {pool.total}, the pool's total."
        )
    return given


def unlabeled_ids(pool: Any) -> Iterator[torch.Tensor]:
    """Yield the ids of a pool's unlabeled samples: int64, ascending; in windows where it lists them so, else whole.

    Raises
    ------
    UsageError
        If ``unlabeled_indices`` returns something else than ids.
    """
    return Candidates(pool).listed()


def _merged(ascending: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Return ids in ascending order, of many that are sorted and a few that are not; sorting all takes far longer."""
    more = more.sort().values
    places = torch.searchsorted(ascending, more) + torch.arange(len(more))
    merged = torch.empty(len(ascending) + len(more), dtype=torch.int64)
    old = torch.ones(len(merged), dtype=torch.bool)
    old[places] = False
    merged[places], merged[old] = more, ascending
    return merged


def _in_both(ids: torch.Tensor, others: torch.Tensor) -> set[int]:
    """Return the ids that are among the others, which are ascending."""
    if not len(others):
        return set()
    places = torch.searchsorted(others, ids).clamp_(max=len(others) - 1)
    return set(ids[others[places] == ids].tolist())


def _takes_two(function: Any) -> bool:
    """Return whether a method can be called with two arguments, as ``unlabeled_indices(start, stop)``."""
    try:
        inspect.signature(function).bind(0, 1)
    except (TypeError, ValueError):
        return False
    return True
