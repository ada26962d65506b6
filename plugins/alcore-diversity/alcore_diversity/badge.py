"""BADGE: k-means++ over gradient embeddings of the last layer, which are not stored explicitly."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from alcore.inference import Features
from alcore.strategies import SetQuery
from alcore_diversity.checks import probabilities, refuse_unless_classifier, with_pending
from alcore_diversity.distances import blocks, doubled, largest

_PROPOSALS = 256


class Gradients:
    """Gradient embeddings of N samples, as outer products of an error and features.

    Parameters
    ----------
    features
        h, shape (N, D), finite.
    probabilities
        p, float64, shape (N, C).

    Attributes
    ----------
    squares : torch.Tensor
        Squared norms, float64, shape (N,).

    Notes
    -----
    The gradient of the cross-entropy with the predicted class y, with respect to the weights of the last layer, is
    (p - onehot(y)) h^T, shape (C, D). The inner product of two of these is the product of those of their factors.
    """

    def __init__(self, features: torch.Tensor, probabilities: torch.Tensor) -> None:
        self._features = features
        self._scale = 2.0 ** min(1000, -math.frexp(largest(features))[1])
        predicted = probabilities.argmax(dim=1, keepdim=True)
        others = probabilities.scatter(1, predicted, 0)
        self._errors = others.scatter_(1, predicted, -others.sum(dim=1, keepdim=True))  # p - 1 would lose digits
        self._noise = (features.shape[1] + probabilities.shape[1] + 16) * 2.0**-52
        self.squares = torch.empty(len(features), dtype=torch.float64)
        for part in blocks(*features.shape):
            norms = self._factors(part)[0].square_().sum(dim=1)
            self.squares[part] = norms.mul_(self._errors[part].square().sum(dim=1))

    def to(self, rows: torch.Tensor, part: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """Return squared distances to some of the samples, (m,), of a part of them, (n,): float64, shape (n, m).

        What is not above the rounding of double precision is 0, as between samples with equal gradients.
        """
        features, errors = self._factors(part)
        other_features, other_errors = self._factors(rows)
        products = (features @ other_features.T).mul_(errors @ other_errors.T)
        norms = self.squares[part][:, None] + self.squares[rows]
        squares = torch.add(norms, products, alpha=-2)
        return squares.masked_fill_(squares <= norms.mul_(self._noise), 0)

    def lower(self, near: torch.Tensor, rows: torch.Tensor) -> None:
        """Lower squared distances to the nearest center, float64 (N,), by these new centers."""
        for part in blocks(len(near), max(len(rows), self._features.shape[1])):
            torch.minimum(near[part], self.to(rows, part).amin(dim=1), out=near[part])

    def _factors(self, part: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return doubled(self._features[part]).mul_(self._scale), self._errors[part]


def badge(
    features: torch.Tensor,
    probabilities: torch.Tensor,
    n: int,
    generator: torch.Generator,
    safe_point: Callable[[], object] = lambda: None,
    chosen: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Seed k-means++ on gradient embeddings.

    Parameters
    ----------
    features
        Inputs of the last layer: shape (N, D), finite.
    probabilities
        Of the classes: shape (N, C).
    n
        How many to choose; all that are left if there are fewer.
    generator
        The generator to draw from.
    safe_point
        Called regularly; it may raise to end the computation.
    chosen
        How many of the first samples were chosen before; the seeding goes on from them.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (k,), in the order in which they were chosen, counted from those chosen before; and the squared
        distance of each to the nearest one before it, float64 (k,), in units in which the largest feature is between
        1/2 and 1; of the first its squared norm.

    Notes
    -----
    The first one of all is the sample with the longest gradient, of equal ones the first, as in the authors' code. Each
    further one is drawn with a probability in proportion to its squared distance to the nearest one chosen so far;
    if all are at distance 0, the rest is drawn uniformly.

    Squared distances never grow. So samples are proposed by earlier distances, and a proposal is accepted with the
    ratio of its current to its earlier distance: this draws from exactly the same distribution, and all distances
    need to be known anew only once in many draws.
    """
    gradients = Gradients(features, probabilities.double())
    n = chosen + min(n, len(features) - chosen)
    if n == chosen:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
    picks = list(range(chosen)) or [int(gradients.squares.argmax())]
    squares = [0.0] * chosen or [float(gradients.squares[picks[0]])]
    near, new = torch.full_like(gradients.squares, torch.inf), torch.tensor(picks)
    while len(picks) < n:
        safe_point()
        gradients.lower(near, new)
        near[picks] = 0
        if not bool(near.any()):
            left = torch.ones(len(near), dtype=torch.bool)
            left[picks] = False
            rest = left.nonzero().flatten()
            rest = rest[torch.randperm(len(rest), generator=generator)][: n - len(picks)]
            picks += rest.tolist()
            squares += [0.0] * len(rest)
            break
        drawn = _draw(gradients, near, n - len(picks), generator)
        picks += [pick for pick, _ in drawn]
        squares += [square for _, square in drawn]
        new = torch.tensor([pick for pick, _ in drawn], dtype=torch.int64)
    return torch.tensor(picks[chosen:]) - chosen, torch.tensor(squares[chosen:], dtype=torch.float64)


def _draw(gradients: Gradients, near: torch.Tensor, n: int, generator: torch.Generator) -> list[tuple[int, float]]:
    """Draw up to n samples, at least one: propose by `near`, and accept each with the ratio of its current distance."""
    reach = near.cumsum(dim=0)
    draws = torch.rand(2, _PROPOSALS, generator=generator, dtype=torch.float64)
    proposed = torch.searchsorted(reach, draws[0] * reach[-1], right=True).clamp_(max=len(near) - 1)
    now = near[proposed]
    least = (draws[1] * now).tolist()
    between = gradients.to(proposed, proposed)
    drawn: list[tuple[int, float]] = []
    for place, pick in enumerate(proposed.tolist()):
        square = float(now[place])
        if least[place] < square:
            drawn.append((pick, square))
            if len(drawn) == n:
                break
            now = torch.minimum(now, between[place])
    return drawn


class BADGEQuery(SetQuery):
    """Ask for samples with long and different gradients: BADGE, batch active learning by diverse gradient embeddings.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Inputs of the last layer: ``""`` for the penultimate activations, ``"inputs"`` for the inputs, else the
        dotted name of a submodule of the learner.

    Notes
    -----
    With p the class probabilities of x, y the most likely class and h the features, the gradient embedding is

        g(x) = (p - onehot(y)) h^T,

    and the batch is a k-means++ seeding of these: first the longest one, then each with a probability in proportion to
    min over what is chosen of ||g(x) - g(c)||^2. The score is that squared distance, of the first its squared norm. One
    output column means two classes; for posterior samples, their mean probability is used. With no difference left the
    rest is drawn uniformly. Labeled samples play no part; pending ones count as chosen.

    Time is O(N k (D + C)), in a few products over all N; memory O(N C) beside the features, O(N D), where the
    embeddings would be O(N C D).

    It helps in batches, with a trained network, where it balances uncertainty and diversity; it has no
    parameter to tune. It is known to hurt little anywhere, but gains little over margin sampling at batch sizes
    near 1, and nothing while the learner is confident about everything.

    References
    ----------
    Ash, Zhang, Krishnamurthy, Langford and Agarwal (2020), Deep batch active learning by diverse, uncertain gradient
    lower bounds, ICLR.
    Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA.
    """

    needs_labeled = False

    def check(self) -> None:
        """Raise `UsageError` for regression, outputs that are not a classifier's, and a learner without the layer."""
        refuse_unless_classifier(self.driver)
        super().check()

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions in the order they were drawn, and squared distances."""
        del labeled  # not used
        samples, chosen = with_pending(candidates, pending)
        class_shares = probabilities(samples, self.driver)
        return badge(samples.features, class_shares, n, self.generator(), self.driver.safe_point, chosen)
