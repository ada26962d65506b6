"""ProbCover: cover as many samples as possible by balls around labeled ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from alcore.errors import UsageError
from alcore.inference import Features
from alcore.protocols import RunContext
from alcore.strategies import SetQuery
from alcore_diversity.checks import chosen_features
from alcore_diversity.clusters import k_means
from alcore_diversity.distances import BLOCK, Frame, unit
from alcore_diversity.nearest_center import Settled
from alcore_diversity.radius_graph import Balls

_ANCHORS = 1000


def prob_cover(
    features: torch.Tensor,
    labeled: torch.Tensor,
    radius: float,
    n: int,
    generator: torch.Generator,
    safe_point: Callable[[], object] = lambda: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose repeatedly the sample whose ball has the most samples that are not covered yet.

    Parameters
    ----------
    features
        Of N candidates: shape (N, D), finite.
    labeled
        Samples whose balls hold something already: shape (L, D), finite.
    radius
        Of the balls, which are closed; may be infinite.
    n
        How many to choose; all N if there are fewer.
    generator
        The generator to draw the rest from, once everything is covered.
    safe_point
        Called regularly; it may raise to end the computation.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (k,), in the order in which they were chosen, of equal ones the first; and how many samples
        each one covered anew, float64 (k,).

    Notes
    -----
    Each sample is subtracted from all balls once, when it is covered, so there are at most N^2 distances beside those
    of the first count, N^2 / 2; none is kept.
    """
    count, n = len(features), min(n, len(features))
    balls = Balls(torch.cat([features, labeled]), radius, safe_point)
    open_ = ~balls.touch(torch.arange(count, len(balls.features)))
    open_[count:] = False
    gains = balls.weights(open_.float())[:count]
    picks: list[int] = []
    covered: list[float] = []
    while len(picks) < n:
        safe_point()
        pick = int(gains.argmax())  # of equal values the first
        if gains[pick] < 1:
            break
        picks.append(pick)
        covered.append(float(gains[pick]))
        new = balls.touch(torch.tensor([pick])) & open_
        open_ &= ~new
        gains -= balls.counts(new.nonzero().flatten())[:count]
        gains[pick] = -torch.inf
    left = torch.ones(count, dtype=torch.bool)
    left[picks] = False
    rest = left.nonzero().flatten()
    rest = rest[torch.randperm(len(rest), generator=generator)][: n - len(picks)]
    positions = torch.cat([torch.tensor(picks, dtype=torch.int64), rest])
    return positions, torch.tensor(covered + [0.0] * len(rest), dtype=torch.float64)


def pure_radius(features: torch.Tensor, clusters: torch.Tensor, purity: float, generator: torch.Generator) -> float:
    """Return the largest radius at which a fraction `purity` of the balls has samples of one cluster only.

    Parameters
    ----------
    features
        Shape (N, D), finite.
    clusters
        The cluster of each sample, which stands for its class: int64, shape (N,).
    purity
        Part of the balls: above 0, at most 1.
    generator
        What 1000 samples are drawn from, whose balls are looked at; all where there are fewer.

    Returns
    -------
    float
        Just below the distance at which one ball too many reaches another cluster: 0 if too many samples share a
        place with another cluster, infinite for one cluster alone.
    """
    anchors = torch.randperm(len(features), generator=generator)[:_ANCHORS].sort().values
    if not len(anchors):
        return math.inf
    frame = Frame(features)
    enemies = []
    for cluster in torch.unique(clusters[anchors]).tolist():
        own = features[anchors[clusters[anchors] == cluster]]
        settled = Settled(frame, own, torch.full((len(own),), torch.inf, dtype=torch.float64))
        for others in torch.split((clusters != cluster).nonzero().flatten(), max(1, BLOCK // len(own))):
            settled.lower(features[others])
        enemies.append(settled.values)
    impure = math.floor(len(anchors) * (1 - purity) + 1e-9)  # number of balls that may reach another cluster
    reach = torch.cat(enemies).sort().values
    return math.inf if impure == len(reach) else float(reach[impure].sqrt()) * (1 - 2**-40)


class ProbCoverQuery(SetQuery):
    """Ask for samples whose neighborhoods cover the most samples: ProbCover, active learning by a covering lens.

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
    delta
        Radius of the neighborhoods, in units of the features; None finds it, see below.
    purity
        Part of the neighborhoods that are to hold one class alone, where `delta` is None.
    normalize
        Scale each sample's features to length 1, as the paper does.

    Notes
    -----
    With balls of radius delta around all labeled and pending samples and picks, the next pick is the one whose ball has
    the most candidates that are not covered yet, of equal ones that with the lowest id. The score is their number. Once
    all are covered, the rest is drawn uniformly.

    Where ``delta`` is None it is the largest one at which a fraction ``purity`` of the balls has one class only, with
    the clusters of k-means, as many as there are classes, in place of classes. That is a quantile of the distances to
    the nearest sample of another cluster, which is taken over all candidates, or 1000 random ones. It is found in each
    step, as the features change with the model.

    Time is O(N (N + L) D), in blocks; memory O(N D). Set ``candidates`` above some 10^4 samples.

    It helps with few labels (up to some ten a class) and features that were learned without labels, and it needs no
    trained learner, so it can choose a first selection. It is known to hurt with many labels, when all that matters is
    covered, and with a delta that doesn't suit the features.

    References
    ----------
    Yehuda, Dekel, Hacohen and Weinshall (2022), Active learning through a covering lens, NeurIPS.
    """

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        delta: float | None = None,
        purity: float = 0.95,
        normalize: bool = False,
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        if delta is not None and not 0 <= delta < math.inf:
            raise UsageError(f"ProbCoverQuery: delta is {delta!r}; it must be a distance of at least 0, or left out.")
        if not 0 < purity <= 1:
            raise UsageError(f"ProbCoverQuery: purity is {purity!r}; it must be above 0 and at most 1.")
        self.delta, self.purity, self.normalize = delta, purity, normalize

    def attach(self, driver: RunContext) -> None:
        """Receive the run, which may know the number of classes; else it is that of the outputs."""
        super().attach(driver)
        self.needs_outputs = self.delta is None and not (driver.info is not None and driver.info.classes)

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions in the order in which they were chosen, and the number of samples that each one adds."""
        features, chosen = candidates.features, chosen_features(candidates, labeled, pending)
        if self.normalize:
            features, chosen = unit(features).float(), unit(chosen).float()
        radius = self._radius(candidates, features) if self.delta is None else self.delta
        return prob_cover(features, chosen, radius, n, self.generator(), self.driver.safe_point)

    def _radius(self, candidates: Features, features: torch.Tensor) -> float:
        info, outputs = self.driver.info, candidates.outputs
        classes = info.classes if info is not None else None
        if not classes:
            classes = outputs.shape[-1] if outputs.dim() > 1 else 2
        clusters = k_means(features, max(classes, 2), self.generator("clusters"))
        radius = pure_radius(features, clusters, self.purity, self.generator("purity"))
        self.logger.info("%s: delta is %.4g", self.name, radius)
        return radius
