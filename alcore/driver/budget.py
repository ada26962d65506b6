"""What a labeling phase may still spend, and whether its labels keep failing."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable


class Budget:
    """What is paid and reserved, compared with what may be spent.

    Parameters
    ----------
    limit
        What labels may cost in all; None sets no limit.

    Attributes
    ----------
    committed : float
        What was paid, plus what the open requests are expected to cost.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.committed = 0.0

    def copy(self) -> Budget:
        """Return another one that is the same now."""
        other = Budget(self._limit)
        other.committed = self.committed
        return other

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._limit is not None

    @property
    def left(self) -> float:
        """What may still be reserved; negative where labels were dearer than expected."""
        return math.inf if self._limit is None else self._limit - self.committed

    @property
    def is_exceeded(self) -> bool:
        """Whether more is paid and reserved than may be spent; 0.1 + 0.2 is not more than 0.3."""
        return self._limit is not None and self.left < 0 and not math.isclose(self.committed, self._limit)


class FailureRate:
    """How many of the last answers were failures.

    Infrastructure, time-outs and refused answers are failures; an item that can't be labeled is an answer.

    Parameters
    ----------
    most
        The share of failures above which labels keep failing.

    Notes
    -----
    The last 20 answers count, if there are 5 at least.
    """

    window, fewest = 20, 5

    def __init__(self, most: float) -> None:
        self._most = most
        self._failed: collections.deque[bool] = collections.deque(maxlen=self.window)

    def begin(self, failed: Iterable[bool]) -> None:
        """Take over which of the last answers were failures, the oldest first."""
        self._failed.clear()
        self._failed.extend(failed)

    def add(self, *, failed: bool) -> None:
        """Count an answer."""
        self._failed.append(failed)

    @property
    def counts(self) -> tuple[int, int]:
        """How many of the last answers were failures, and how many answers that are."""
        return sum(self._failed), len(self._failed)

    @property
    def is_exceeded(self) -> bool:
        """Whether labels keep failing."""
        failed, answers = self.counts
        return answers >= self.fewest and failed > self._most * answers
