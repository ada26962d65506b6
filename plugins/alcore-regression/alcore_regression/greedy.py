"""Greedy sampling: repeatedly choose the sample farthest from all labeled ones, in inputs, outputs or both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

_BLOCK = 1024  # rows, and labeled samples, whose distances are in memory at a time
_NUMBERS = 2**17  # of rows and their distances; with few labeled samples, that is more than _BLOCK rows
_SHORTLIST = 256  # rows whose distances are lowered by each pick
Picks = tuple[torch.Tensor, torch.Tensor]
Space = tuple[torch.Tensor, torch.Tensor]
_Array = np.ndarray[Any, np.dtype[np.floating[Any]]]


def _do_nothing() -> None:
    """Take the place of a `safe_point`."""


def gsx(
    features: torch.Tensor, labeled: torch.Tensor, n: int, *, safe_point: Callable[[], None] = _do_nothing
) -> Picks:
    """Choose by distance in the inputs: GSx.

    Each pick is the candidate with the largest distance to the nearest labeled sample,
    ``argmax_n min_m ||x_n - x_m||``, and counts as labeled from then on. Without labeled samples the first pick is
    the candidate nearest to the mean of all candidates.

    Parameters
    ----------
    features
        Candidates: shape (N, D), finite.
    labeled
        Labeled samples: shape (M, D); M may be 0.
    n
        How many to choose; fewer come back when there are fewer.
    safe_point
        Called between blocks of distances; it may raise to end the computation.

    Returns
    -------
    tuple of torch.Tensor
        Positions among the candidates, int64 (k,), best first, and their distances when picked, float64 (k,); the
        distance of a first pick without labeled samples is infinite. Ties go to the lower position.

    References
    ----------
    Yu and Kim (2010), Passive sampling for regression, ICDM; Wu, Lin and Huang (2019), Active learning for
    regression using greedy sampling, Information Sciences 474.
    """
    return _greedy([(features, labeled)], n, safe_point)


def gsy(
    predictions: torch.Tensor, targets: torch.Tensor, n: int, *, safe_point: Callable[[], None] = _do_nothing
) -> Picks:
    """Choose by distance in the output: GSy.

    As `gsx` with the distance ``||f(x_n) - y_m||`` between the prediction for a candidate and a known target. The
    target of a picked sample is its prediction.

    Parameters
    ----------
    predictions
        For the candidates: shape (N, T), finite.
    targets
        Of the labeled samples: shape (M, T).
    n, safe_point
        As in `gsx`, and so are the returned values.

    References
    ----------
    Wu, Lin and Huang (2019), Active learning for regression using greedy sampling, Information Sciences 474.
    """
    return _greedy([(predictions, targets)], n, safe_point)


def igs(
    features: torch.Tensor,
    predictions: torch.Tensor,
    labeled: torch.Tensor,
    targets: torch.Tensor,
    n: int,
    *,
    safe_point: Callable[[], None] = _do_nothing,
) -> Picks:
    """Choose by distance in inputs and output: improved greedy sampling, iGS.

    As `gsx` with the product of both distances, ``||x_n - x_m|| ||f(x_n) - y_m||``, whose minimum is taken over m.

    Parameters
    ----------
    features, predictions
        Of the candidates: shapes (N, D) and (N, T), finite.
    labeled, targets
        Of the labeled samples: shapes (M, D) and (M, T).
    n, safe_point
        As in `gsx`, and so are the returned values.

    References
    ----------
    Wu, Lin and Huang (2019), Active learning for regression using greedy sampling, Information Sciences 474.
    """
    return _greedy([(features, labeled), (predictions, targets)], n, safe_point)


def _greedy(spaces: Sequence[Space], n: int, safe_point: Callable[[], None]) -> Picks:
    """Pick n times the largest least distance, where a distance is the product of those in all spaces.

    Least distances never grow. So picks are made among the rows with the largest ones, whose distances are kept exact,
    while these are above the earlier distances of all other rows; only then those of all rows are lowered.
    """
    of_rows = [_Vectors(rows) for rows, _ in spaces]
    n = min(n, len(of_rows[0]))
    picks: list[int] = []
    scores: list[float] = []
    least = np.full(len(of_rows[0]), np.inf)
    if len(spaces[0][1]):
        _lower(least, of_rows, [_Vectors(labeled) for _, labeled in spaces], safe_point)
    elif n:
        picks, scores = [_central(of_rows[0])], [np.inf]
        _lower(least, of_rows, [vectors[picks] for vectors in of_rows], safe_point)
        least[picks] = -np.inf
    while len(picks) < n:
        first, new = int(least.argmax()), len(picks)
        safe_point()
        top, others = _largest(least, first)
        for place, distance in _pick([vectors[top] for vectors in of_rows], least[top], others, n - new):
            picks.append(int(top[place]))
            scores.append(distance)
        if len(picks) < n:
            _lower(least, of_rows, [vectors[picks[new:]] for vectors in of_rows], safe_point)
            least[picks[new:]] = -np.inf
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(scores, dtype=torch.float64)


def _largest(least: _Array, first: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
    """Return the positions of the largest values, ascending, that of the first largest among them, and the next one."""
    if len(least) <= _SHORTLIST:
        return np.arange(len(least)), -np.inf
    place = len(least) - _SHORTLIST - 1
    others = float(np.partition(least, place)[place])
    rows = np.flatnonzero(least > others)
    return (rows, others) if len(rows) else (np.array([first]), others)


def _pick(rows: Sequence[_Vectors], near: _Array, others: float, n: int) -> list[tuple[int, float]]:
    """Choose at least one and up to n of a few rows, in order, while their least distances are above those of others.

    Parameters
    ----------
    rows
        All m of them, in each space.
    near
        Their least distances, (m,), which are lowered in place by each pick.
    others
        The largest least distance of all other rows.
    n
        How many to choose.

    Returns
    -------
    list
        Positions among the rows, and their least distances when picked.
    """
    picks: list[tuple[int, float]] = []
    with np.errstate(over="ignore", invalid="ignore"):
        between = _bounds_between(rows)
        limit, exact = _limit(near, between.dtype), [vectors.rows.double().numpy() for vectors in rows]
        while len(picks) < n:
            best = int(near.argmax())
            if picks and not near[best] > others:
                break
            picks.append((best, float(near[best])))
            near[best] = limit[best] = -np.inf  # never again, even where all distances are 0
            places = np.flatnonzero(~(between[best] > limit))
            distances = _product(_lengths(coordinates[places] - coordinates[best]) for coordinates in exact)
            near[places] = nearest = np.minimum(near[places], distances)
            limit[places] = _limit(nearest, limit.dtype)
    return picks


def _bounds_between(rows: Sequence[_Vectors]) -> _Array:
    """Return bounds from below of the squared distances between all m rows: (m, m)."""
    if any(vectors.is_huge for vectors in rows):
        return np.full((len(rows[0]), len(rows[0])), -np.inf)
    return _product(
        np.maximum(bounds, 0, out=bounds) for bounds in (vectors.squares_below(vectors) for vectors in rows)
    )


def _limit(least: _Array, dtype: np.dtype[np.floating[Any]]) -> _Array:
    """Return squares of least distances, raised by more than products and conversions are rounded by.

    Nothing is below the limit of what was picked, whose least distance is negative.
    """
    return _raised(_squares(least), dtype)


def _squares(least: _Array) -> _Array:
    squares: _Array = np.where(least < 0, -np.inf, least * least)
    return squares


def _raised(squares: _Array, dtype: np.dtype[np.floating[Any]]) -> _Array:
    return (squares * (1 + 2.0**-20)).astype(dtype)


class _Vectors:
    """Vectors, and distances between them.

    The squared distance by a matrix product is off by at most 2 (D + 1) u ||x|| ||y||, with the unit roundoff u, beside
    what double precision rounds. The sum of a slack of either vector is more than twice that.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.double()
        parts = [part.double().square().sum(dim=1) for part in torch.split(self.rows, _BLOCK)]
        squares = torch.cat(parts).numpy() if parts else np.empty(0)
        limits, columns = torch.finfo(self.rows.dtype), rows.shape[1]
        self.is_huge = bool(squares.size) and not float(squares.max()) < limits.max / 8  # products may overflow
        self._slack = squares * ((columns + 16) * limits.eps) + columns * limits.tiny
        self._below = squares - self._slack

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: Any) -> _Vectors:
        some = object.__new__(_Vectors)
        some.rows, some.is_huge = self.rows[part], self.is_huge
        some._slack, some._below = self._slack[part], self._below[part]
        return some

    def squares_below(self, others: _Vectors) -> _Array:
        """Return bounds from below of the squared distances to m others, in the precision of the vectors: (n, m)."""
        dtype = torch.promote_types(self.rows.dtype, others.rows.dtype)
        squares: _Array = (self.rows.to(dtype) @ others.rows.to(dtype).T).numpy()
        squares *= -2  # numpy is several times as fast as torch here
        squares += self._below[:, None].astype(squares.dtype)
        squares += others._below.astype(squares.dtype)
        return squares

    def squares_above(self, others: _Vectors, below: _Array) -> _Array:
        """Return bounds from above of these squared distances, from those from below."""
        above: _Array = below + (2 * others._slack).astype(below.dtype)
        above += (2 * self._slack[:, None]).astype(below.dtype)
        return above

    def exact(self, others: _Vectors, row: torch.Tensor, column: torch.Tensor) -> _Array:
        """Return distances of pairs, float64 (P,): 0 for equal vectors, and the same for equal pairs."""
        return _lengths((self.rows[row].double() - others.rows[column].double()).numpy())


def _lower(
    least: _Array, spaces: Sequence[_Vectors], labeled: Sequence[_Vectors], safe_point: Callable[[], None]
) -> None:
    """Lower the least distance of each row, (N,), in place, for more labeled samples, which are given in all spaces.

    Distances are computed from differences in double precision, for those pairs alone that may have the least one of
    their row: duplicates have distance 0, and equal rows have equal distances, which a matrix product does not
    guarantee.
    """
    step = max(_BLOCK, _NUMBERS // max(len(labeled[0]), max(vectors.rows.shape[1] for vectors in spaces)))
    for start in range(0, len(least), step):
        safe_point()
        block = slice(start, start + step)
        rows = [vectors[block] for vectors in spaces]
        for first in range(0, len(labeled[0]), _BLOCK):
            others = [vectors[first : first + _BLOCK] for vectors in labeled]
            row, column = _possible(least[block], rows, others)
            for some in range(0, len(row), step):
                pairs = row[some : some + step], column[some : some + step]
                distances = _product(vectors.exact(other, *pairs) for vectors, other in zip(rows, others, strict=True))
                np.minimum.at(least[block], pairs[0].numpy(), distances)


def _possible(least: _Array, rows: Sequence[_Vectors], others: Sequence[_Vectors]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pairs that may be nearer than the least distance of their row, and nearest of all others."""
    if any(vectors.is_huge for vectors in (*rows, *others)):
        row, column = np.nonzero(np.broadcast_to(least[:, None] >= 0, (len(least), len(others[0]))))
        return torch.from_numpy(row), torch.from_numpy(column)
    with np.errstate(over="ignore", invalid="ignore"):
        below = [vectors.squares_below(other) for vectors, other in zip(rows, others, strict=True)]
        limit = _squares(least)
        if len(others[0]) > 1:
            above = (vectors.squares_above(other, low) for vectors, other, low in zip(rows, others, below, strict=True))
            limit = np.minimum(limit, _product(above).min(axis=1))
        product = below[0] if len(below) == 1 else _product(np.maximum(bounds, 0, out=bounds) for bounds in below)
        row, column = np.nonzero(~(product > _raised(limit, product.dtype)[:, None]))
    return torch.from_numpy(row), torch.from_numpy(column)


def _lengths(vectors: _Array) -> _Array:
    """Return the length of each row, float64 (P,), the same whatever stands beside it; the rows are overwritten."""
    # torch's square root isn't exact, and its sum of a single row depends on the number of threads
    lengths: _Array = np.sqrt(np.square(vectors, out=vectors).sum(axis=1))
    return lengths


def _product(factors: Iterable[_Array]) -> _Array:
    return functools.reduce(lambda first, other: np.multiply(first, other, out=first), factors)


def _central(vectors: _Vectors) -> int:
    """Return the position of the vector nearest to the mean of all; of equally near ones the first."""
    mean = torch.zeros(1, vectors.rows.shape[1], dtype=torch.float64)
    for block in torch.split(vectors.rows, _BLOCK):
        mean += block.double().sum(dim=0)
    least = np.full(len(vectors), np.inf)
    _lower(least, [vectors], [_Vectors(mean / len(vectors))], _do_nothing)
    return int(least.argmin())
