"""Distances of samples to their nearest center: upper bounds for all, and exact values for a few."""

from __future__ import annotations

import torch

from alcore_diversity.distances import BLOCK, Frame, blocks, distinct, exact_squares, quick_squares

_GOLDEN = 0.6180339887498949


class NearestCenter:
    """Upper bounds of the squared distances of N samples to their nearest center.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    centers
        Shape (L, D), finite; repeated ones count once.

    Attributes
    ----------
    bound : torch.Tensor
        Float64, shape (N,): not below the true values. A sample that is not a candidate any more has a negative one.
    seen : torch.Tensor
        Int32, shape (N,): how many of the first centers the bound takes into account.

    Notes
    -----
    Memory is O(N) beside the features. A bound is lowered by a product in single precision, to which its largest
    possible error is added; see `alcore_diversity.distances.Frame`.
    """

    def __init__(self, features: torch.Tensor, centers: torch.Tensor) -> None:
        self.features = features
        self.centers = centers[_spread(distinct(centers))]
        self.bound = torch.full((len(features),), torch.inf, dtype=torch.float64)
        self.seen = torch.zeros(len(features), dtype=torch.int32)
        self._frame = Frame(features, centers)

    def __len__(self) -> int:
        return len(self.features)

    def add(self, centers: torch.Tensor) -> None:
        """Add centers, shape (m, D), which the bounds don't take into account yet."""
        self.centers = torch.cat([self.centers, centers])

    def lower(self, rows: torch.Tensor | None, upto: int) -> None:
        """Lower bounds by the centers up to one: of samples at these positions, int64 (n,), or of all."""
        seen = self.seen if rows is None else self.seen[rows]
        if not len(seen):
            return
        low, high = (int(end) for end in torch.aminmax(seen))
        if low >= upto:
            return
        if rows is None and low == high:
            self._lower(list(blocks(len(self), max(upto - low, self.features.shape[1]))), low, upto)
            return
        for first in torch.unique(seen[seen < upto]).tolist():
            these = (seen == first).nonzero().flatten()
            these = these if rows is None else rows[these]
            size = max(1, BLOCK // max(upto - first, self.features.shape[1]))
            self._lower(torch.split(these, size), first, upto)

    def settle(self, rows: torch.Tensor) -> Settled:
        """Find the exact values of some samples; positions are int64 (n,)."""
        settled = Settled(self._frame, self.features[rows], self.bound[rows])
        for centers in torch.split(self.centers, max(1, 4 * BLOCK // len(rows))):
            settled.lower(centers)
        return settled

    def store(self, rows: torch.Tensor, values: torch.Tensor) -> None:
        """Set the bounds of samples to exact values, float64 (n,)."""
        self.bound[rows], self.seen[rows] = values, len(self.centers)

    def _lower(self, parts: list[slice] | tuple[torch.Tensor, ...], first: int, upto: int) -> None:
        centers, norms = self._frame.scaled(self.centers[first:upto])
        largest, squares = float(norms.max()), norms.square()
        for part in parts:
            x, x_norms = self._frame.scaled(self.features[part])
            new = torch.addmm(squares, x, centers.T, alpha=-2).amin(dim=1).add_(x_norms.square())
            new = self._frame.from_placed(new.add_(self._frame.error(x_norms, largest)))
            self.bound[part] = torch.minimum(self.bound[part], new)
            self.seen[part] = upto


class Settled:
    """Some samples with their exact squared distances to the nearest center.

    Parameters
    ----------
    frame
        Places features for quick distances.
    features
        Shape (n, D).
    bound
        Float64, shape (n,): not below the true values; negative for samples that are no candidates.

    Attributes
    ----------
    values : torch.Tensor
        Float64, shape (n,): infinite while there are no centers, -1 for what is no candidate.
    """

    def __init__(self, frame: Frame, features: torch.Tensor, bound: torch.Tensor) -> None:
        self._frame, self.features = frame, features
        self.values = torch.full_like(bound, torch.inf).masked_fill_(bound < 0, -1)
        self._placed, self._norms = frame.scaled(features)
        self._limit = frame.to_placed(bound).masked_fill_(bound < 0, -torch.inf)
        self._between: torch.Tensor | None = None

    def lower(self, centers: torch.Tensor) -> None:
        """Take centers into account, shape (m, D): those that may be the nearest center of a sample, exactly."""
        if not len(centers):
            return
        placed, norms = self._frame.scaled(centers)
        error = self._frame.error(self._norms, float(norms.max()))
        least = quick_squares(self._placed, self._norms, placed, norms).sub_(error[:, None])
        self._limit = torch.minimum(self._limit, least.amin(dim=1).add_(error, alpha=2))
        rows, columns = (least <= self._limit[:, None]).nonzero(as_tuple=True)
        for part in blocks(len(rows), self.features.shape[1]):
            row = rows[part]
            exact = exact_squares(self.features[row], centers[columns[part]])
            self.values.scatter_reduce_(0, row, exact, "amin")

    def choose(self, row: int) -> None:
        """Make a sample a center: it is not a candidate afterwards, and the values of the others are lowered."""
        self.values[row], self._limit[row] = -1, -torch.inf
        rows = (self._least(row) <= self._limit).nonzero().flatten()
        if len(rows):
            exact = exact_squares(self.features[rows], self.features[row : row + 1])
            values = torch.minimum(self.values[rows], exact)
            self.values[rows], self._limit[rows] = values, self._frame.to_placed(values)

    def _least(self, row: int) -> torch.Tensor:
        """Return lower bounds of the squared distances of all samples to one scaled sample: float32 (n,)."""
        if self._between is None and len(self.values) ** 2 <= 4 * BLOCK:
            self._between = self._least_of(slice(None))
        return self._least_of(slice(row, row + 1))[0] if self._between is None else self._between[row]

    def _least_of(self, part: slice) -> torch.Tensor:
        least = quick_squares(self._placed[part], self._norms[part], self._placed, self._norms)
        return least.sub_(self._frame.error(self._norms, float(self._norms.max())))


def _spread(positions: torch.Tensor) -> torch.Tensor:
    """Reorder positions so that any number of first ones is spread over all."""
    return positions[torch.arange(len(positions), dtype=torch.float64).mul_(_GOLDEN).frac_().argsort()]
