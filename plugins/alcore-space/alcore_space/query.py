"""The query strategy that begins a run on a design space."""

from __future__ import annotations

from typing import Any

from alcore.errors import UsageError
from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery


class DesignQuery(BaseQuery):
    """Ask for the start design of a design space, and for the points that it is measured on.

    A start strategy: the run begins with it, while nothing is labeled. ``data.space`` has the parameters: ``design``,
    ``initial`` and ``validation``. Points to measure on are asked for first.

    Notes
    -----
    Where ``driver.samples_per_step`` is less than the points of the start, they can't be asked for in one step, which
    is an error.
    """

    max_samples = 0

    def check(self) -> None:
        """Raise `UsageError` for a pool without a start design."""
        if not isinstance(getattr(self.driver.choice_pool, "start_ids", None), list):
            raise UsageError(
                f"{type(self.driver.choice_pool).__name__} has no start design; it is for --data space. Another start "
                "strategy is --start random."
            )

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the points of the start that nobody asked for yet."""
        ids = self.driver.choice_pool.start_ids
        if (most := self.driver.wanted(len(ids))) < len(ids):
            raise UsageError(
                f"the start design and the points to measure on are {len(ids)} together, and driver.samples_per_step "
                f"allows {most} in a step; leave it out, or make data.space.initial and data.space.validation smaller."
            )
        query_queue.put_many(ids)
