"""Which processes take part in what is going on: all ranks of the run, or this one by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alcore.distributed.ranks import Ranks


class RankScope:
    """The ranks of a run, or one of them while it works by itself.

    Parameters
    ----------
    ranks
        All ranks of the run.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.all = ranks
        self._by_itself = 0

    @property
    def current(self) -> Ranks:
        """The ranks that compute together now."""
        return self.all.by_itself() if self._by_itself else self.all

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let this rank compute by itself in the block, since the others do something else, or nothing."""
        self._by_itself += 1
        try:
            yield
        finally:
            self._by_itself -= 1
