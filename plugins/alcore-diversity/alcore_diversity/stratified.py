"""Stratified random sampling: a share of the samples from each predicted class, or each cluster."""

from __future__ import annotations

from typing import Literal

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import check_known, predicted, refuse_unless_classifier, with_pending
from alcore_diversity.clusters import k_means

Strata = Literal["predicted", "clusters"]
Allocation = Literal["proportional", "equal"]


def allocate(sizes: torch.Tensor, n: int, allocation: Allocation = "proportional") -> torch.Tensor:
    """Return the number of samples to draw from each stratum.

    Parameters
    ----------
    sizes
        Of the strata: int64, shape (S,).
    n
        How many to take in all; all there are where there are fewer.
    allocation
        ``"proportional"`` to the sizes, rounded so that the largest remainders gain; or ``"equal"``, as far as the
        sizes allow. Of equal strata the first gains.

    Returns
    -------
    torch.Tensor
        Int64, shape (S,): none above its size, in sum min(n, sum of the sizes).
    """
    total = int(sizes.sum())
    n = min(n, total)
    if allocation == "equal":
        shares = torch.zeros_like(sizes)
        left = n
        while left:
            open_ = (shares < sizes).nonzero().flatten()
            each = left // len(open_)
            if not each:
                shares[open_[:left]] += 1
                break
            more = torch.minimum(sizes[open_] - shares[open_], torch.tensor(each))
            shares[open_] += more
            left -= int(more.sum())
        return shares
    if not total:
        return torch.zeros_like(sizes)
    shares = n * sizes // total
    remainders = n * sizes % total
    gain = torch.sort(remainders, descending=True, stable=True).indices[: n - int(shares.sum())]
    shares[gain] += 1
    return shares


def stratified(
    strata: torch.Tensor,
    n: int,
    generator: torch.Generator,
    allocation: Allocation = "proportional",
    chosen: int = 0,
) -> torch.Tensor:
    """Draw the share of each stratum, uniformly and without replacement.

    Parameters
    ----------
    strata
        The stratum of each sample: int64, shape (N,), from 0.
    n
        How many to draw; all that are left if there are fewer.
    generator
        The generator to draw from.
    allocation
        How n is shared out, see `allocate`.
    chosen
        How many of the first samples were chosen before: they count toward the shares of their strata.

    Returns
    -------
    torch.Tensor
        Positions, int64 (k,), in random order, counted from those chosen before.
    """
    count = int(strata.max()) + 1 if len(strata) else 0
    before, strata = torch.bincount(strata[:chosen], minlength=count), strata[chosen:]
    sizes = torch.bincount(strata, minlength=len(before))
    shares = (allocate(before + sizes, chosen + n, allocation) - before).clamp_(min=0)
    shares = allocate(shares, n) if chosen else shares  # strata that have more than their share leave less for others
    order = torch.randperm(len(strata), generator=generator)
    by_stratum = torch.sort(strata[order], stable=True)
    starts = sizes.cumsum(dim=0) - sizes
    rank = torch.arange(len(strata)) - starts[by_stratum.values]
    taken = by_stratum.indices[rank < shares[by_stratum.values]]
    return order[taken.sort().values]


class StratifiedQuery(SetQuery):
    """Ask for random samples of each predicted class, or of each cluster.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Features that are clustered: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, otherwise the
        dotted name of a submodule of the learner.
    strata
        ``"predicted"`` for the predicted classes, or ``"clusters"`` for clusters by k-means.
    clusters
        How many clusters.
    allocation
        ``"proportional"`` takes of each stratum in proportion to its size, ``"equal"`` of each as many as it can.

    Notes
    -----
    Within a stratum each sample is equally likely. Pending samples count toward the shares. Time and memory are O(N C)
    for predicted classes; k-means takes time O(N D clusters) for each of up to 300 iterations.

    In proportion it is an unbiased sample with less variance than a random one, which suits a test set as well.
    Equal shares help with classes of very unequal size, and are known to hurt where accuracy under the natural
    frequencies counts.

    References
    ----------
    Cochran (1977), Sampling techniques, chapter 5.
    """

    needs_labeled = False

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        strata: Strata = "predicted",
        clusters: int = 10,
        allocation: Allocation = "proportional",
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        check_known("StratifiedQuery", "strata", strata, ["predicted", "clusters"])
        check_known("StratifiedQuery", "allocation", allocation, ["proportional", "equal"])
        if clusters < 1:
            raise UsageError(f"StratifiedQuery: clusters is {clusters!r}; it must be at least 1.")
        self.strata, self.clusters, self.allocation = strata, clusters, allocation
        self.needs_features = strata == "clusters"
        self.needs_outputs = not self.needs_features

    def check(self) -> None:
        """Raise `UsageError` if the learner is not a classifier, or does not have the layer, if the strata need it."""
        if self.needs_features:
            super().check()
        else:
            refuse_unless_classifier(self.driver)

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> torch.Tensor:
        """Return positions in random order."""
        del labeled  # not used
        samples, chosen = with_pending(candidates, pending)
        if self.strata == "predicted":
            strata = predicted(samples, self.driver)
        else:
            strata = k_means(samples.features, self.clusters, self.generator("clusters"))
        return stratified(strata, n, self.generator(), self.allocation, chosen)
