"""Squared Euclidean distances: fast ones with a bound of their error, and exact ones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

BLOCK = 2**18
"""Numbers in a block of a computation; several blocks fit into a processor's cache."""

_UNIT = 2.0**-24  # unit roundoff of single precision
_TINY = 2.0**-120  # bound of the underflow error of a squared distance of scaled rows


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices of rows, such that a block of this width has `BLOCK` numbers."""
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def exact_squares(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return squared distances of pairs of rows, from differences in double precision.

    Parameters
    ----------
    left, right
        Shape (P, D), or one of them (1, D).

    Returns
    -------
    torch.Tensor
        Float64, shape (P,): exactly 0 for equal rows, and for each pair the same whatever stands beside it.
    """
    difference = left.double() - right.double()
    if len(difference) == 1:  # the sum of a single row depends on the number of threads
        return difference.square_().repeat(2, 1).sum(dim=1)[:1]
    return difference.square_().sum(dim=1)


def doubled(rows: torch.Tensor) -> torch.Tensor:
    """Return a copy in double precision, to be written to; ``rows.double()`` is `rows` itself where it is float64."""
    return rows.to(torch.float64, copy=True)


def distinct(rows: torch.Tensor) -> torch.Tensor:
    """Return the positions of rows that equal no earlier row, ascending: int64; rows have shape (n, D)."""
    if len(rows) < 2:
        return torch.arange(len(rows))
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((len(rows),), len(rows)).scatter_reduce(0, group, torch.arange(len(rows)), "amin")
    return first[first < len(rows)].sort().values


def joined(features: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """Return the rows of all others, any of which may be empty, as rows of the width of the features."""
    rows = [other for other in others if len(other)]
    if not rows:
        return features.new_empty(0, features.shape[1])
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Return rows scaled to length 1, float64 (n, D); a zero vector stays zero."""
    rows = rows.double()
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt_().clamp_(min=torch.finfo(torch.float64).tiny)


class Frame:
    """Features shifted and scaled to lose as little as possible in single precision.

    Parameters
    ----------
    *features
        Finite, each of shape (n, D). The largest magnitude is taken from them, and the mean of some rows of the first.

    Notes
    -----
    The squared distance of two scaled rows of norms a and b, as `quick_squares` computes it, is off by less than
    ``error(a, b)``: a rounding for each of D terms of a product, and some more, of what is at most (a + b)^2.
    """

    def __init__(self, *features: torch.Tensor) -> None:
        most = max(largest(part) for part in features)
        self._scale = 2.0 ** max(-126, min(126, -math.frexp(most)[1]))  # a power of two, so that scaling is exact
        some = features[0][:: len(features[0]) // 4096 + 1].double()
        origin = some.mean(dim=0).mul_(self._scale) if len(some) else some.new_zeros(some.shape[1])
        self._minus_origin = origin.neg_().float()
        self._roundings = (some.shape[1] + 16) * _UNIT
        self._slack = some.shape[1] ** 0.5 * 2.0**-29  # rounding errors of `scaled`

    def scaled(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled rows, float32 (n, D), and their norms, float32 (n,)."""
        placed = torch.add(self._minus_origin.to(rows.dtype), rows, alpha=self._scale).float()
        return placed, torch.linalg.vector_norm(placed, dim=1)

    def error(self, norms: torch.Tensor, other: float) -> torch.Tensor:
        """Return a bound of the error of squared distances between rows of these norms and of norms up to `other`."""
        sums: torch.Tensor = norms + (other + self._slack)
        return sums.square_().mul_(self._roundings).add_(_TINY)

    def to_placed(self, squares: torch.Tensor) -> torch.Tensor:
        """Return squared distances in the units of scaled rows: float32."""
        return squares.mul(self._scale**2).float()

    def from_placed(self, squares: torch.Tensor) -> torch.Tensor:
        """Return squared distances of scaled rows in the units of features: float64."""
        return squares.double() * self._scale**-2


def quick_squares(
    left: torch.Tensor, left_norms: torch.Tensor, right: torch.Tensor, right_norms: torch.Tensor
) -> torch.Tensor:
    """Return squared distances between scaled rows (n, D) and (m, D), by a product: float32 (n, m)."""
    squares = torch.addmm(right_norms.square(), left, right.T, alpha=-2)
    return squares.add_(left_norms.square()[:, None])


def largest(features: torch.Tensor) -> float:
    """Return the largest magnitude; 0 if there are no features."""
    if not features.numel():
        return 0.0
    low, high = torch.aminmax(features)  # both are NaN if a value is
    return max(-float(low), float(high))
