"""Cluster-Margin: choose from clusters of the samples with the smallest margins, small clusters first."""

from __future__ import annotations

import math

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import chosen_features, probabilities, refuse_unless_classifier, uncertainty_of
from alcore_diversity.clusters import average_linkage
from alcore_diversity.distances import joined

_CLUSTER_SIZE = 10


def round_robin(clusters: torch.Tensor, n: int, taken: int = 0) -> torch.Tensor:
    """Take one sample of each cluster in turn, from the smallest cluster to the largest, until n are taken.

    Parameters
    ----------
    clusters
        The cluster of each of M samples, in the order in which a cluster gives its samples: int64, shape (M,).
    n
        How many to take; all that are left where there are fewer.
    taken
        How many of the first samples were taken before: their clusters have had so many turns.

    Returns
    -------
    torch.Tensor
        Positions, int64 (k,), none of them taken before. Of clusters of one size that with the lower number comes
        first.
    """
    _, labels, sizes = torch.unique(clusters, return_inverse=True, return_counts=True)
    place = torch.empty_like(labels)  # the position of each sample within its cluster
    order = torch.sort(labels, stable=True).indices
    place[order] = torch.arange(len(labels)) - (sizes.cumsum(dim=0) - sizes)[labels[order]]
    turn = torch.empty_like(sizes)
    turn[torch.sort(sizes, stable=True).indices] = torch.arange(len(sizes))
    turns = torch.argsort(place * len(sizes) + turn[labels])
    return turns[turns >= taken][:n]


def cluster_margin(
    features: torch.Tensor,
    margins: torch.Tensor,
    n: int,
    generator: torch.Generator,
    shortlist: float = 10.0,
    threshold: float | None = None,
    chosen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose among the samples with the smallest margins, spread over clusters of them.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    margins
        Shape (N,), smaller for less sure.
    n
        How many to choose; all N if there are fewer.
    generator
        The generator to draw samples of a cluster from.
    shortlist
        How many times n samples are looked at.
    threshold
        The average distance above which clusters are not merged; None makes clusters of 10 samples on average.
    chosen
        Features of samples that were chosen before, shape (P, D): they are clustered too, and were taken first.

    Returns
    -------
    torch.Tensor
        Positions, int64 (k,), in the order in which they were taken.
    """
    size = min(len(features), max(n, math.ceil(shortlist * n)))
    least = torch.sort(margins, stable=True).indices[:size].sort().values
    before = joined(features, *([] if chosen is None else [chosen]))
    taken = len(before)
    count = None if threshold is not None else math.ceil((taken + size) / _CLUSTER_SIZE)
    clusters = average_linkage(joined(features, before, features[least]), count, threshold)
    order = torch.randperm(size, generator=generator)
    turns = round_robin(torch.cat([clusters[:taken], clusters[taken:][order]]), n, taken)
    return least[order[turns - taken]]


class ClusterMarginQuery(SetQuery):
    """Ask for samples with small margins from many clusters: Cluster-Margin.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        What clusters are made from: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, else the
        dotted name of a submodule of the learner.
    shortlist
        How many times `max_samples` samples, those with the smallest margins, are clustered.
    threshold
        The average distance above which clusters are not merged; None makes clusters of 10 samples on average.

    Notes
    -----
    The margin is the difference between the two largest class probabilities. The samples with the smallest ones are
    clustered once, by agglomeration with average linkage, and then taken in turn: from each cluster, the smallest
    first, a random one, and again from the smallest that is not used up. Pending samples are clustered with the
    shortlist, and count as taken. No score is given, since the order has none.
    For posterior samples, their mean probability is used.

    The paper clusters the whole pool once, before the first step; here it is the shortlist that is clustered, in each
    step, since the features change with the model and all pairs of a large pool don't fit in memory.

    Time is O(N C) and O(M^2 D) for a shortlist of M samples; memory O(N D) for features and O(M^2).

    It helps in large batches, where margins alone ask for near-duplicates. It is known to be no better than margins in
    small batches.

    References
    ----------
    Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar (2021), Batch active learning at scale,
    NeurIPS.
    """

    needs_labeled = False

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        shortlist: float = 10.0,
        threshold: float | None = None,
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        if not 1 <= shortlist < math.inf:
            raise UsageError(f"ClusterMarginQuery: shortlist is {shortlist!r}; it must be a number of at least 1.")
        if threshold is not None and not 0 <= threshold < math.inf:
            raise UsageError(f"ClusterMarginQuery: threshold is {threshold!r}; it must be a distance of at least 0.")
        self.shortlist, self.threshold = shortlist, threshold

    def check(self) -> None:
        """Raise `UsageError` for regression, outputs that are not a classifier's, and a learner without the layer."""
        refuse_unless_classifier(self.driver)
        super().check()

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> torch.Tensor:
        """Return positions in the order in which they were taken."""
        chosen = chosen_features(candidates, labeled.take(slice(0)), pending)  # labels are not used
        margins = -uncertainty_of("margin", probabilities(candidates, self.driver))
        features, generator = candidates.features, self.generator()
        return cluster_margin(features, margins, n, generator, self.shortlist, self.threshold, chosen)
