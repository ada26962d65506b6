"""The query strategy of a ceiling: everything at once."""

from __future__ import annotations

from typing import Any

from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery


class EverythingQuery(BaseQuery):
    """Ask for every sample that is left.

    What a run learns from all labels is the ceiling that other strategies are measured against. There is nothing to
    choose, so `max_samples` does not exist; ``driver.samples_per_step`` and the budget still hold.

    Notes
    -----
    One pass over the pool; memory O(N) for the requests.
    """

    def check(self) -> None:
        """Raise `UsageError` if the pool can't list its unlabeled samples."""
        next(self.driver.candidates(), None)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for all candidates."""
        for ids in self.driver.candidates():
            query_queue.put_many(ids.tolist())
