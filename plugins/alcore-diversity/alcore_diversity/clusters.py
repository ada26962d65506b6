"""Clusters by scikit-learn, also of few, equal or very large samples, and the most typical sample of a cluster."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from alcore_diversity.distances import BLOCK, doubled, largest

_FEW_CLUSTERS = 50  # with more clusters, mini-batches are used, as by the authors of TypiClust
_BATCH = 5000
_SEEDS = 16


def k_means(features: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    """Return the cluster of each sample.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    clusters
        How many clusters; N where there are fewer samples. Equal samples can make for fewer.
    generator
        The generator to draw the seed from.

    Returns
    -------
    torch.Tensor
        Int64, shape (N,).

    Notes
    -----
    Up to 50 clusters it is the full algorithm, above it goes by mini-batches. Time is O(N D clusters) an iteration.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters = min(clusters, len(features))
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    if clusters < 2:
        return torch.zeros(len(features), dtype=torch.int64)
    scale = 2.0 ** max(-126, min(126, -math.frexp(largest(features))[1]))  # or squares would overflow
    rows = np.ascontiguousarray(features.mul(scale).numpy(), dtype=np.float32)
    if clusters <= _FEW_CLUSTERS:
        model = KMeans(clusters, n_init=1, random_state=seed, copy_x=False)
    else:
        model = MiniBatchKMeans(clusters, n_init=1, batch_size=_BATCH, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than clusters
        return torch.from_numpy(model.fit_predict(rows)).long()


def average_linkage(features: torch.Tensor, clusters: int | None, threshold: float | None = None) -> torch.Tensor:
    """Return the cluster of each sample: int64, shape (M,).

    Parameters
    ----------
    features
        Shape (M, D), finite.
    clusters
        How many clusters, or None to go by `threshold`.
    threshold
        Clusters with a larger mean distance between their samples are not merged.

    Notes
    -----
    Agglomeration with average linkage of Euclidean distances, in double precision: time O(M^2 D), memory O(M^2).
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(features) < 2:
        return torch.zeros(len(features), dtype=torch.int64)
    model = AgglomerativeClustering(clusters, linkage="average", distance_threshold=threshold)
    return torch.from_numpy(model.fit_predict(features.double().numpy())).long()


def most_typical(features: torch.Tensor, neighbors: int) -> tuple[int, float]:
    """Return the sample with the smallest mean distance to its nearest neighbors, and that distance.

    Parameters
    ----------
    features
        Shape (m, D), finite, m of at least 1.
    neighbors
        How many count, at least 1; all others where there are fewer.

    Notes
    -----
    Distances are rounded to a millionth of the largest distance from the mean, so that values that differ by rounding
    errors are equal; of equal samples the first is returned. The few samples nearest to the mean are tried first: they
    give an upper bound of the smallest mean distance, which rules out most others without sorting their distances. Time
    is O(m^2 D), memory O(m D).
    """
    count = min(neighbors, len(features) - 1)
    rows = doubled(features)
    rows -= rows.mean(dim=0)
    step = float(rows.square().sum(dim=1).amax().sqrt()) * 2.0**-20
    if not step or not count:
        return 0, 0.0
    norms = rows.div_(step).square().sum(dim=1)
    means = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    best = reach = torch.inf
    seeds = norms.topk(min(_SEEDS, len(rows)), largest=False).indices
    for some in (seeds, *torch.split(torch.arange(len(rows)), max(1, 4 * BLOCK // len(rows)))):
        squares = torch.addmm(norms, rows[some], rows.T, alpha=-2).add_(norms[some, None])
        squares.masked_fill_(squares < 1, 0)  # products are rounded, so copies would differ
        squares[torch.arange(len(some)), some] = torch.inf
        near = torch.count_nonzero(squares <= reach * reach, dim=1).clamp_(max=count)
        least = near * squares.amin(dim=1).sqrt_()  # not above the sum of distances to the nearest
        least += (count - near) * (reach if reach < torch.inf else 0.0)
        possible = least <= (best + 2) * count
        some, squares = some[possible], squares[possible]
        if len(some):
            nearest = squares.topk(count, dim=1, largest=False, sorted=False).values.sqrt_()
            means[some] = nearest.mean(dim=1)
            first = int(means[some].argmin())
            if means[some[first]] < best:
                best, reach = float(means[some[first]]), float(nearest[first].amax())
    means.round_()
    row = int(means.argmin())
    return row, float(means[row]) * step
