"""The processes of a run: how they exchange values and share work. One process is the case of a single rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Ranks:
    """The processes of a run, seen from one of them; this class is the run of a single process.

    `alcore.distributed.group.Group` is the run of several processes. All ranks must call `share`, `gather`,
    `differing`, `any` and `on_rank_0` in the same order.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and the number of processes. Rank 0 writes the run directory, labels, and
        decides.
    is_detached : bool
        Whether one of several ranks works by itself with this object, which `by_itself` returned: it exchanges nothing
        with the other ranks. False in a run of a single process.
    """

    rank: int = 0
    size: int = 1
    is_detached: bool = False

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def begin(self) -> None:
        """Begin a run; a failure that was reported in an earlier run of these processes no longer counts."""

    def by_itself(self) -> Ranks:
        """Return what this rank uses while it works by itself: a single rank that exchanges nothing with others."""
        return self

    def share(self, make: Callable[[], T]) -> T:
        """Return on every rank what `make` returns on rank 0; it is called there alone.

        Parameters
        ----------
        make
            Returns a value of the types that `alcore.codec` stores.
        """
        return make()

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of ranks, on every rank.

        Parameters
        ----------
        value
            The value of this rank, of the types that `alcore.codec` stores.
        """
        return [value]

    def differing(self, value: object) -> int | None:
        """Return the first rank whose value differs from that of rank 0, or None."""
        values = self.gather(value)
        return next((rank for rank, value in enumerate(values) if value != values[0]), None)

    def any(self, flag: bool) -> bool:
        """Return on every rank whether `flag` is true on at least one rank."""
        return flag

    def on_rank_0(self, work: Callable[[], None], interrupted: Callable[[], bool] = lambda: False) -> None:
        """Let rank 0 work, for as long as it takes, while the other ranks wait.

        The process-group time-out doesn't apply to this wait. An error of `work` ends the other ranks too.

        Parameters
        ----------
        work
            Called on rank 0. It must not exchange anything with other ranks; see `by_itself`.
        interrupted
            Asked on the other ranks while they wait, at least once a second. Where it returns True, that rank reports
            it and raises `Interrupted`; rank 0 can learn of it from `others_ended`.
        """
        del interrupted
        work()

    def others_ended(self) -> bool:
        """Return whether another rank has reported that it failed or was interrupted.

        For rank 0 while it works alone; other exchanges end by themselves in that case. It asks at most once a second
        and can be called after each put. Raise `Interrupted` where it returns True: `root_cause` makes the error of
        the other rank of it.
        """
        return False

    def fail(self, error: BaseException) -> None:
        """Report to the other ranks, and to torchrun, why this rank ends; the first report of a run stands."""

    def root_cause(self, error: BaseException) -> BaseException:
        """Return the failure of another rank that made this error happen, else the error itself."""
        return error


def mean_over_ranks(values: Sequence[float]) -> float:
    """Return the mean of one value per rank; where all are equal, exactly that value."""
    return values[0] if all(value == values[0] for value in values) else sum(values) / len(values)


class RoundRobin:
    """Pieces of work shared among ranks in turns; every rank receives all results, in the order of the pieces.

    Parameters
    ----------
    ranks
        The ranks that share the work. All must add the same pieces.
    compute
        Computes the result of one piece: a tensor, or tuples, lists and dicts of tensors. With several ranks, results
        are returned on the CPU.
    """

    def __init__(self, ranks: Ranks, compute: Callable[[Any], Any]) -> None:
        self._ranks, self._compute = ranks, compute
        self._round: list[Any] = []

    def add(self, work: Any) -> Iterator[tuple[Any, Any]]:
        """Add a piece of work; yield the pieces that are computed by now, each with its result."""
        if self._ranks.size == 1:
            yield work, self._compute(work)
            return
        self._round.append(work)
        if len(self._round) == self._ranks.size:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[Any, Any]]:
        """Yield the pieces that were added and not yielded yet, each with its result."""
        if self._round:
            works, self._round = self._round, []
            own = self._compute(works[self._ranks.rank]) if self._ranks.rank < len(works) else None
            yield from zip(works, self._ranks.gather(_on_cpu(own)), strict=False)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if type(value) in (tuple, list):
        return type(value)(_on_cpu(member) for member in value)
    return {key: _on_cpu(member) for key, member in value.items()} if type(value) is dict else value
