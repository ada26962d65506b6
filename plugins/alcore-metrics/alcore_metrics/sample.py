"""A bounded random sample of what streams by, for metrics that need all values at once."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class RowSample:
    """All rows of a stream of chunks, or where there are more than `most`, that many drawn at random.

    Each row has a random priority, and those with the lowest are kept: which they are doesn't depend on the chunks.

    Parameters
    ----------
    most
        Number of rows; 0 keeps nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._priorities = np.random.default_rng(0)  # not the run's: a sample of the same rows in each step and run
        self._parts: list[tuple[Array, ...]] = []
        self._held = 0

    def add(self, *columns: Array) -> None:
        """Add a chunk: arrays of one length, whose rows belong together."""
        if not self._most:
            return
        self._parts.append((self._priorities.random(len(columns[0])), *(column.copy() for column in columns)))
        self._held += len(columns[0])
        if self._held > 2 * self._most:
            self._shrink()

    def columns(self) -> list[Array]:
        """Return the columns of the sample, in the order of the stream; none where nothing was kept."""
        if not self._parts:
            return []
        self._shrink()
        return list(self._parts[0][1:])

    def _shrink(self) -> None:
        whole = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        if len(whole[0]) > self._most:
            kept = np.sort(np.argpartition(whole[0], self._most)[: self._most])
            whole = [column[kept] for column in whole]
        self._parts, self._held = [tuple(whole)], len(whole[0])
