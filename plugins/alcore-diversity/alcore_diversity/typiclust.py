"""TypiClust: the most typical sample of each cluster without a label."""

from __future__ import annotations

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import chosen_features
from alcore_diversity.clusters import k_means, most_typical
from alcore_diversity.distances import unit

_SMALLEST = 5  # samples; clusters of up to this size come last
_MOST_CLUSTERS = 500


def typiclust(
    features: torch.Tensor, clusters: torch.Tensor, labeled: torch.Tensor, n: int, neighbors: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the most typical sample of each cluster in turn.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    clusters
        The cluster of each sample: int64, shape (N,), from 0.
    labeled
        The cluster of each labeled sample: int64, shape (L,).
    n
        How many to choose; all N if there are fewer.
    neighbors
        How many of the nearest samples count for typicality, but not more than half of those there are.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (k,), in the order in which they were chosen, and their typicality, float64 (k,): 1 / mean
        distance to the nearest neighbors, infinite where that is 0.

    Notes
    -----
    Clusters are ordered by the number of labeled samples, the fewest first, then by their size, the largest first,
    then by number. Those of up to 5 samples come after all others. One sample of each is chosen in turn. Typicality is
    measured among the samples of a cluster that are neither labeled nor chosen.
    """
    count = int(max(clusters.amax() if len(clusters) else -1, labeled.amax() if len(labeled) else -1)) + 1
    free = torch.bincount(clusters, minlength=count)
    taken = torch.bincount(labeled, minlength=count)
    sizes = (free + taken).tolist()
    order = sorted(
        range(count), key=lambda cluster: (sizes[cluster] <= _SMALLEST, int(taken[cluster]), -sizes[cluster], cluster)
    )
    members = torch.split(torch.sort(clusters, stable=True).indices, free.tolist())
    chosen: list[int] = []
    distances: list[float] = []
    for group in (
        [cluster for cluster in order if sizes[cluster] > _SMALLEST],
        [cluster for cluster in order if sizes[cluster] <= _SMALLEST],
    ):
        left = {cluster: members[cluster] for cluster in group if len(members[cluster])}
        while left and len(chosen) < n:
            for cluster in list(left)[: n - len(chosen)]:
                rows = left[cluster]
                best, distance = most_typical(features[rows], min(neighbors, max(len(rows) // 2, 1)))
                chosen.append(int(rows[best]))
                distances.append(distance)
                left[cluster] = torch.cat([rows[:best], rows[best + 1 :]])
                if not len(left[cluster]):
                    del left[cluster]
    return torch.tensor(chosen, dtype=torch.int64), torch.tensor(distances, dtype=torch.float64).reciprocal_()


class TypiClustQuery(SetQuery):
    """Ask for the most typical sample of each cluster without a label: TypiClust.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Features of a sample: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, otherwise the dotted
        name of a submodule of the learner.
    neighbors
        How many of the nearest samples count for typicality, but not more than half of those a cluster has.
    normalize
        Scale each sample's features to length 1, as the paper does.

    Notes
    -----
    Labeled and pending samples, which count alike, and candidates are clustered by k-means into as many clusters as
    there are labels and samples to ask for, but not more than 500. Of each cluster, those with the fewest labels first
    and of these the largest first, it asks for the sample x with the highest typicality

        1 / (mean over its nearest neighbors x' of ||f(x) - f(x')||),

    where neighbors are unlabeled samples of the cluster. Clusters of up to 5 samples come last. The score is the
    typicality. Equally typical samples go by id.

    Time is O(N D K) for each of some passes of k-means with K clusters, and O(N^2 D / K) for neighbors; memory
    O((N + L) D). Up to 50 clusters k-means is the full algorithm, above it goes by mini-batches.

    It helps with few labels (up to some ten a class) and features that were learned without labels, and it needs no
    trained learner, so it can choose a first selection. It is known to hurt with many labels, where uncertainty is the
    better guide.

    References
    ----------
    Hacohen, Dekel and Weinshall (2022), Active learning on a budget: opposite strategies suit high and low budgets,
    ICML.
    """

    needs_outputs = False

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        neighbors: int = 20,
        normalize: bool = False,
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        if neighbors < 1:
            raise UsageError(f"TypiClustQuery: neighbors is {neighbors!r}; it must be at least 1.")
        self.neighbors, self.normalize = neighbors, normalize

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions in the order in which they were chosen, and their typicality."""
        features, chosen = candidates.features, chosen_features(candidates, labeled, pending)
        if self.normalize:
            features, chosen = unit(features).float(), unit(chosen).float()
        self.driver.safe_point()
        count = min(len(chosen) + n, _MOST_CLUSTERS)
        clusters = k_means(torch.cat([chosen, features]), count, self.generator())
        self.driver.safe_point()
        return typiclust(features, clusters[len(chosen) :], clusters[: len(chosen)], n, self.neighbors)
