"""Rank samples by (score, sample id), and keep only the best of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from alcore.errors import QueryError


class Ranked(NamedTuple):
    """The best samples, best first: ids int64 (k,) and their scores float64 (k,)."""

    ids: torch.Tensor
    scores: torch.Tensor


class TopK:
    """Keeps the k best samples of a stream: those of the highest scores, and of equal scores the lowest ids.

    Parameters
    ----------
    k
        How many to keep.

    Notes
    -----
    Ids must arrive in ascending order, since of equal scores those that arrived first are kept. Memory is O(k + chunk).
    Time is O(1) a sample: up to 2k samples are held, and only then reduced to the k best.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._ids: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []
        self._held = 0
        self.floor: float | None = None
        """The lowest of the k best scores; None while fewer than k are known."""

    def add(self, ids: torch.Tensor, scores: torch.Tensor) -> None:
        """Add a chunk: ids int64 (n,), scores (n,)."""
        if not len(ids) or not self._k:
            return
        scores = scores.detach().cpu()
        best = float(scores.max())
        if math.isnan(best):
            bad = ids[scores.isnan()][:5].tolist()
            raise QueryError(
                f"the score of sample {', '.join(map(str, bad))} is NaN, so samples can't be ranked; look at "
                "the learner's output for it, or at its inputs."
            )
        if self.floor is not None:
            if best <= self.floor:
                return
            rows = rows_reaching(scores, self.floor)
            ids, scores = ids[rows], scores[rows]
        self._ids.append(ids)
        self._scores.append(scores.double())
        self._held += len(ids)
        if self._held >= 2 * self._k:
            self._reduce()

    def _reduce(self) -> None:
        ids, scores = torch.cat(self._ids), torch.cat(self._scores)
        if len(ids) > self._k:
            worst = torch.topk(scores, self._k, sorted=False).values.min()
            rows = rows_reaching(scores, float(worst))
            ids, scores = ids[rows], scores[rows]
            above, level = scores > worst, scores == worst
            kept = above | (level & (level.cumsum(0) <= self._k - above.sum()))
            ids, scores = ids[kept], scores[kept]
        self._ids, self._scores, self._held = [ids], [scores], len(ids)
        self.floor = float(scores.min()) if len(ids) == self._k else None

    def result(self) -> Ranked:
        """Return the samples that were kept, best first."""
        if not self._ids:
            return Ranked(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
        self._reduce()
        order = torch.sort(self._scores[0], descending=True, stable=True).indices
        return Ranked(self._ids[0][order], self._scores[0][order])


def rows_reaching(values: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the positions of all values of at least `floor`, of NaN, and of some that are less by a rounding error."""
    if values.dtype not in (torch.float32, torch.float64):
        values = values.double()
    if math.isfinite(floor):
        floor -= abs(floor) * torch.finfo(values.dtype).eps  # comparing rounds it to the precision of the values
    return torch.from_numpy(np.flatnonzero(~(values.numpy() < floor)))  # several times as fast as torch


def merge(parts: Iterable[Ranked], k: int) -> Ranked:
    """Return the k best of the samples that several processes found, however the pool was shared between them."""
    ids, scores = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = ids.argsort()
    best = TopK(k)
    best.add(ids[order], scores[order])
    return best.result()
