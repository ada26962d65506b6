"""Samples of a pool with their counterparts at the highest fidelity, where what is to be learned are predictions."""

from __future__ import annotations

from typing import Any

import torch

from alcore.pools import at_highest_fidelity


class WithHighestFidelity:
    """The samples of a pool, and each at the highest fidelity too: sample i is then ``i + offset``.

    Parameters
    ----------
    pool
        The pool to choose from, which offers ``at_highest_fidelity`` (`alcore.protocols.PoolFidelity`) and says how
        many samples it has.

    Attributes
    ----------
    offset : int
        What is added to the id of a sample.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.offset = int(pool.total)

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the inputs of samples, and of samples at the highest fidelity, in any order: one tensor (B, ...)."""
        highest = ids >= self.offset
        if not bool(highest.any()):
            return self._own(ids)
        moved: torch.Tensor = self._pool.at_highest_fidelity(ids[highest] - self.offset)
        if bool(highest.all()):
            return moved
        rows = moved.new_empty(len(ids), *moved.shape[1:])
        rows[highest], rows[~highest] = moved, self._own(ids[~highest])
        return rows

    def _own(self, ids: torch.Tensor) -> torch.Tensor:
        own: torch.Tensor = self._pool.inputs(ids)
        return own


def with_highest_fidelity(pool: Any, ids: torch.Tensor) -> WithHighestFidelity | None:
    """Return a pool with its samples at the highest fidelity; None where its labels are all alike.

    Parameters
    ----------
    pool
        The pool to choose from.
    ids
        Some of its samples: int64 (n,).
    """
    return None if at_highest_fidelity(pool, ids[:1]) is None else WithHighestFidelity(pool)
