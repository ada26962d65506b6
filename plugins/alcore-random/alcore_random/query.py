"""The random query strategy, and how a query strategy looks."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference import TopK
from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery


class RandomQuery(BaseQuery):
    """Ask for samples chosen uniformly at random, without replacement.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.

    Notes
    -----
    Each candidate draws a key, and the largest keys win: one pass over the pool, memory O(max_samples). The
    draws depend on the seed of the run and on the step, not on what other code drew before.
    """

    def __init__(self, max_samples: int = 10) -> None:
        if max_samples < 0:
            raise UsageError(f"RandomQuery: max_samples is {max_samples}; it must not be negative.")
        self.max_samples = max_samples

    def check(self) -> None:
        """Refuse a pool that can't list its unlabeled samples, before anything is trained."""
        next(self.driver.candidates(), None)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for `max_samples` of the driver's candidates."""
        chosen, generator = TopK(self.wanted), self.generator()
        for ids in self.driver.candidates():
            chosen.add(ids, torch.rand(len(ids), generator=generator, dtype=torch.float64))
        query_queue.put_many(chosen.result().ids.tolist())
