"""What one process of a run says to the others; by itself it is all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Ranks:
    """A process by itself: rank 0 of one.

    Attributes
    ----------
    rank, size : int
        The number of this process, and how many there are. Rank 0 is the one that writes, labels, and decides.
    """

    rank, size = 0, 1
    is_alone = False
    """Whether this object stands for one of several ranks that works by itself."""

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def begin(self, asked_to_end: Callable[[], bool]) -> None:
        """Begin a run; `asked_to_end` tells whether this rank was asked to end it."""

    def share(self, make: Callable[[], T]) -> T:
        """Return on every rank what `make` returns on rank 0, which alone calls it."""
        return make()

    def gather(self, value: T, *, soon: bool = False) -> list[T]:
        """Return the values of all ranks, in their order, on each rank; `soon` where none comes much later."""
        del soon
        return [value]

    def differing(self, value: object) -> int | None:
        """Return the first rank whose value is not that of rank 0, or None."""
        everywhere = self.gather(value)
        return next((rank for rank, one in enumerate(everywhere) if one != everywhere[0]), None)

    def any(self, flag: bool) -> bool:
        """Tell every rank whether the flag of some rank is up."""
        return flag

    def alone(self, work: Callable[[], None]) -> None:
        """Let rank 0 work for as long as it takes, while the others wait outside any collective."""
        work()

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks why this one ends."""

    def cause(self, error: BaseException) -> BaseException:
        """Return what ended this rank: another one's failure, where that is behind the error."""
        return error


def mean_over_ranks(values: Sequence[float]) -> float:
    """Return the mean of what ranks have; of equal numbers, the number itself."""
    return values[0] if all(one == values[0] for one in values) else sum(values) / len(values)


class RoundRobin:
    """Round-robin work over ranks; every rank receives all results in order.

    Parameters
    ----------
    ranks
        Who works.
    compute
        Does one piece of work; its result is of tensors. Of what another rank did, and of what it hands to others, they
        are on the CPU.
    """

    def __init__(self, ranks: Ranks, compute: Callable[[Any], Any]) -> None:
        self._ranks, self._compute = ranks, compute
        self._round: list[Any] = []

    def add(self, work: Any) -> Iterator[tuple[Any, Any]]:
        """Take in a piece of work; yield those that are done now, with their results."""
        if self._ranks.size == 1:
            yield work, self._compute(work)
            return
        self._round.append(work)
        if len(self._round) == self._ranks.size:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[Any, Any]]:
        """Yield what was taken in and is not done yet."""
        if self._round:
            works, self._round = self._round, []
            own = self._compute(works[self._ranks.rank]) if self._ranks.rank < len(works) else None
            results = self._ranks.gather(_on_cpu(own), soon=True)
            yield from zip(works, results, strict=False)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if type(value) in (tuple, list):
        return type(value)(_on_cpu(one) for one in value)
    return {key: _on_cpu(one) for key, one in value.items()} if type(value) is dict else value
