"""The random query strategy, which is also an example of a query strategy."""

from __future__ import annotations

from typing import Any

import torch

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
    A random number is drawn for each candidate, and the samples with the largest numbers are chosen: one pass over the
    pool, memory O(max_samples). The choice depends on the seed of the run and the step, not on draws of other code.
    """

    def __init__(self, max_samples: int = 10) -> None:
        self.set_max_samples(max_samples)

    def check(self) -> None:
        """Raise `UsageError` if the pool can't list its unlabeled samples."""
        next(self.driver.candidates(), None)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for `max_samples` candidates."""
        chosen, generator = TopK(self.wanted), self.generator()
        for ids in self.driver.candidates():
            chosen.add(ids, torch.rand(len(ids), generator=generator, dtype=torch.float64))
        query_queue.put_many(chosen.result().ids.tolist())
