"""Pairs of samples within a radius, computed in single precision, and exactly where rounding could matter."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from alcore_diversity.distances import BLOCK, Frame, blocks, exact_squares, quick_squares

_Part = slice | torch.Tensor


class Balls:
    """Closed balls of one radius around N samples.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    radius
        At least 0, in units of the features; may be infinite.
    safe_point
        Called regularly; it may raise to end the computation.

    Notes
    -----
    Which pairs are within the radius is never held for more than a block: memory is O(N D).
    """

    def __init__(self, features: torch.Tensor, radius: float, safe_point: Callable[[], object] = lambda: None) -> None:
        self.features, self._safe_point = features, safe_point
        self._square = radius * radius
        self._frame = Frame(features)
        self._limit = float(self._frame.to_placed(torch.tensor(self._square, dtype=torch.float64)))
        self._placed, self._norms = self._frame.scaled(features)
        self.sides = list(blocks(len(features), math.isqrt(BLOCK)))
        """Slices of the samples, two of which make a block."""

    def hold(self, left: _Part, right: _Part) -> torch.Tensor:
        """Return 1.0 for pairs within the radius, a sample on the left and one on the right: float32 (n, m)."""
        squares = quick_squares(self._placed[left], self._norms[left], self._placed[right], self._norms[right])
        error = self._frame.error(self._norms[left], float(self._norms[right].amax()))[:, None]
        sure = torch.le(squares, self._limit - error, out=torch.empty_like(squares))
        near = torch.le(squares, self._limit + error, out=torch.empty_like(squares))
        rows, columns = near.sub_(sure).nonzero(as_tuple=True) if not torch.equal(near, sure) else ((), ())
        if len(rows):
            exact = exact_squares(self.features[left][rows], self.features[right][columns])
            sure[rows, columns] = (exact <= self._square).float()
        return sure

    def touch(self, columns: torch.Tensor) -> torch.Tensor:
        """Return which samples are within the radius of a sample at these positions: bool (N,)."""
        touched = torch.zeros(len(self.features), dtype=torch.bool)
        for part in self.sides if len(columns) else ():
            self._safe_point()
            for some in torch.split(columns, math.isqrt(BLOCK)):
                touched[part] |= self.hold(part, some).any(dim=1)
        return touched

    def counts(self, columns: torch.Tensor) -> torch.Tensor:
        """Return for each ball the number of samples at these positions in it: float32 (N,)."""
        sums = torch.zeros(len(self.features))
        for part in self.sides:
            self._safe_point()
            for some in torch.split(columns, math.isqrt(BLOCK)):
                sums[part] += self.hold(part, some).sum(dim=1)
        return sums

    def weights(self, of: torch.Tensor) -> torch.Tensor:
        """Return for each ball the sum of the weights, float32 (N,), of the samples in it: float32 (N,)."""
        sums = torch.zeros_like(of)
        for place, left in enumerate(self.sides):
            self._safe_point()
            for right in self.sides[place:]:
                held = self.hold(left, right)
                sums[left] += held @ of[right]
                if right != left:
                    sums[right] += of[left] @ held
        return sums
