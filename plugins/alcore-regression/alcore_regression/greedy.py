"""Greedy sampling: repeatedly choose the sample farthest from all labeled ones, in inputs, outputs or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_BLOCK = 1024  # rows, and labeled samples, whose distances are in memory at a time
Picks = tuple[torch.Tensor, torch.Tensor]
Space = tuple[torch.Tensor, torch.Tensor]


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
    """Pick n times the largest least distance, where a distance is the product of those in all spaces."""
    rows = [row for row, _ in spaces]
    size = len(rows[0])
    positions, scores = torch.empty(min(n, size), dtype=torch.int64), torch.empty(min(n, size), dtype=torch.float64)
    least = torch.full((size,), torch.inf, dtype=torch.float64)
    if len(spaces[0][1]):
        _lower(least, spaces, safe_point)
    for place in range(len(positions)):
        unlabeled = place == 0 and not len(spaces[0][1])
        pick = _central(rows[0]) if unlabeled else int(least.argmax())
        positions[place], scores[place] = pick, least[pick]
        _lower(least, [(row, row[pick : pick + 1]) for row in rows], safe_point)
        least[pick] = -torch.inf  # never again, even where all distances are 0
    return positions, scores


def _lower(least: torch.Tensor, spaces: Sequence[Space], safe_point: Callable[[], None]) -> None:
    """Lower the least distance of each row, (N,), in place, for more labeled samples.

    Differences are computed before they are squared, in double precision: duplicates have distance 0, and equal rows
    have equal distances, which the faster computation by a matrix product does not guarantee.
    """
    for start in range(0, len(least), _BLOCK):
        safe_point()
        block = slice(start, start + _BLOCK)
        for first in range(0, len(spaces[0][1]), _BLOCK):
            distances = None
            for row, known in spaces:
                part = torch.cdist(
                    row[block].double(),
                    known[first : first + _BLOCK].double(),
                    compute_mode="donot_use_mm_for_euclid_dist",
                )
                distances = part if distances is None else distances.mul_(part)
            assert distances is not None
            least[block] = torch.minimum(least[block], distances.amin(dim=1))


def _central(features: torch.Tensor) -> int:
    """Return the position of the row nearest to the mean of all rows."""
    mean = torch.zeros(1, features.shape[1], dtype=torch.float64)
    for block in torch.split(features, _BLOCK):
        mean += block.double().sum(dim=0)
    least = torch.full((len(features),), torch.inf, dtype=torch.float64)
    _lower(least, [(features, mean / len(features))], _do_nothing)
    return int(least.argmin())
