"""Information density: uncertainty, weighted by the similarity to other samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import (
    Measure,
    check_known,
    check_measure,
    probabilities,
    refuse_unless_classifier,
    uncertainty_of,
    with_pending,
)
from alcore_diversity.distances import BLOCK, blocks, doubled

Similarity = Literal["cosine", "euclidean"]


def mean_cosine(features: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine between each sample and all of them, itself included.

    Parameters
    ----------
    features
        Shape (N, D), finite; the cosine of a zero vector to anything is 0.

    Returns
    -------
    torch.Tensor
        Float64, shape (N,): the product of each unit vector with the mean of all, which takes time O(N D).
    """
    parts = list(blocks(*features.shape))
    means = torch.empty(len(features), dtype=torch.float64)
    norms, total = torch.empty_like(means), torch.zeros(features.shape[1], dtype=torch.float64)
    buffer = torch.empty_like(features[parts[0]] if parts else features, dtype=torch.float64)  # one for all blocks
    for part in parts:
        rows = buffer[: part.stop - part.start].copy_(features[part])
        torch.linalg.vector_norm(rows, dim=1, out=norms[part])
        norms[part].clamp_(min=torch.finfo(torch.float64).tiny)
        total += norms[part].reciprocal() @ rows
    mean = total / max(len(features), 1)
    for part in parts:
        rows = buffer[: part.stop - part.start].copy_(features[part])
        torch.sum(rows.mul_(mean), dim=1, out=means[part])
    return means.div_(norms)


def mean_closeness(features: torch.Tensor, safe_point: Callable[[], object] = lambda: None) -> torch.Tensor:
    """Return the mean of 1 / (1 + Euclidean distance) between each sample and all of them, itself included.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    safe_point
        Called regularly; it may raise to end the computation.

    Returns
    -------
    torch.Tensor
        Shape (N,): float64 of single precision, so that equal samples have equal values. Time is O(N^2 D), in blocks;
        memory O(N D).
    """
    placed = doubled(features)
    placed -= placed.mean(dim=0)
    squares = placed.square().sum(dim=1)
    means = torch.zeros(len(features), dtype=torch.float64)
    sides, noise = list(blocks(len(features), math.isqrt(BLOCK))), (features.shape[1] + 16) * 2.0**-52
    for part in sides:
        safe_point()
        for other in sides:
            norms = squares[part][:, None] + squares[other]
            distances = torch.addmm(norms, placed[part], placed[other].T, alpha=-2)
            distances.masked_fill_(distances <= norms.mul_(noise), 0)  # products are rounded, so copies would differ
            means[part] += distances.sqrt_().add_(1).reciprocal_().sum(dim=1)
    return means.div_(max(len(features), 1)).float().double()


def information_density(
    uncertainty: torch.Tensor, similarity: torch.Tensor, n: int, beta: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the samples with the highest uncertainty times similarity to the power of beta.

    Parameters
    ----------
    uncertainty
        Shape (N,), not negative.
    similarity
        Mean similarity to all samples, shape (N,); a negative one counts as 0.
    n
        How many to choose; all N if there are fewer.
    beta
        Weight of the similarity, at least 0; with 0 only the uncertainty is used.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (k,), highest score first, of equal ones the first; and the scores, float64 (k,).
    """
    scores = uncertainty.double() * similarity.double().clamp(min=0).pow(beta)
    best = torch.sort(scores, descending=True, stable=True)
    return best.indices[:n], best.values[:n]


class InformationDensityQuery(SetQuery):
    """Ask for samples that the classifier is uncertain about and that are similar to many others: information density.

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
    uncertainty
        ``"entropy"``, ``"margin"`` (one less the difference between the two largest probabilities) or
        ``"least_confidence"``.
    beta
        Weight of the density; with 0 only the uncertainty is used.
    similarity
        ``"cosine"``, or ``"euclidean"`` for 1 / (1 + distance).

    Notes
    -----
    With u the uncertainty and U the candidates and the pending samples, as the samples of a batch stay in it, the score
    is

        u(x) * (mean over x' in U of similarity(x, x'))^beta.

    A negative mean counts as 0, so use ``similarity="euclidean"`` with features that are centered on zero. For
    posterior samples, their mean probability is used.

    Cosines take time O(N D) and memory O(N) beside the features, O(N D), since their mean is a product with the mean
    unit vector. Euclidean similarities take time O(N^2 D): set ``candidates`` above some 10^4 samples.

    It helps where uncertainty alone asks for outliers. It is known to hurt where the classes are of unequal size, since
    it leaves out rare classes, and in large batches, where it asks for near-duplicates.

    References
    ----------
    Settles and Craven (2008), An analysis of active learning strategies for sequence labeling tasks, EMNLP.
    """

    needs_labeled = False

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        uncertainty: Measure = "entropy",
        beta: float = 1.0,
        similarity: Similarity = "cosine",
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        check_measure("InformationDensityQuery", uncertainty)
        if not 0 <= beta < math.inf:
            raise UsageError(f"InformationDensityQuery: beta is {beta!r}; it must be a number of at least 0.")
        check_known("InformationDensityQuery", "similarity", similarity, ["cosine", "euclidean"])
        self.uncertainty, self.beta, self.similarity = uncertainty, beta, similarity

    def check(self) -> None:
        """Raise `UsageError` for regression, outputs that are not a classifier's, and a learner without the layer."""
        refuse_unless_classifier(self.driver)
        super().check()

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions, highest score first, and the scores."""
        del labeled  # not used
        samples, chosen = with_pending(candidates, pending)
        uncertainty = uncertainty_of(self.uncertainty, probabilities(candidates, self.driver))
        if self.similarity == "cosine":
            similarity = mean_cosine(samples.features)
        else:
            similarity = mean_closeness(samples.features, self.driver.safe_point)
        return information_density(uncertainty, similarity[chosen:], n, self.beta)
