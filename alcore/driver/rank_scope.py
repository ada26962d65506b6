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

    Attributes
    ----------
    all : Ranks
        All ranks of the run.
    current : Ranks
        The ranks that compute together now.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.all = self.current = ranks

    @contextlib.contextmanager
    def by_itself(self) -> Iterator[None]:
        """Let this rank compute by itself in the block, since the others do something else, or nothing."""
        before, self.current = self.current, self.all.by_itself()
        try:
            yield
        finally:
            self.current = before
