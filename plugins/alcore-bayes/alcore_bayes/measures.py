"""Measures of disagreement among posterior samples: each maps outputs to one score a sample, higher for more of it.

They are computed in double precision, block by block, so that memory beside the outputs stays small. Outputs are
``(K, B, C)`` for K samples of a posterior, B samples of the pool and C classes; ``(K, B, 1)`` or ``(K, B)`` where one
output column stands for two classes. `kind` says whether they are ``"logits"`` or ``"probabilities"``. A NaN among a
sample's outputs makes its score NaN.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from alcore.inference import Kind
from alcore.inference.posterior import (
    by_blocks,
    check_posterior,
    class_major,
    mean_and_entropy,
    plogp,
    with_both_classes,
)


def bald(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the mutual information between the class and the model: BALD.

    ``I(y; w) = H(mean_k p_k) - mean_k H(p_k)``, in nats: what knowing the class would tell about the model.

    Parameters
    ----------
    outputs
        Posterior samples ``(K, B, C)``, ``(K, B, 1)`` or ``(K, B)``.
    kind
        ``"logits"`` or ``"probabilities"``.
    top
        Compute only what may be among the `top` highest scores in double precision, the rest in single, which takes
        half the time. The `top` highest and their ranks don't change by it. None computes all in double precision.

    Returns
    -------
    torch.Tensor
        Scores, float64 (B,), from 0 to log(min(K, C)); what double precision can't tell from 0 is 0.

    References
    ----------
    Houlsby, Huszar, Ghahramani and Lengyel (2011), Bayesian active learning for classification and preference
    learning, arXiv:1112.5745. Gal, Islam and Ghahramani (2017), Deep Bayesian active learning with image data, ICML.
    """
    return by_blocks(check_posterior(outputs), lambda block, dtype: _mutual_information(block, kind, dtype), top)


def consensus_kl(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of the members of a committee from their mean.

    ``mean_k KL(p_k || mean_j p_j)``, in nats. It is the same quantity as `bald`, under the name that it has in query by
    committee; parameters and result are those of `bald`.

    References
    ----------
    McCallum and Nigam (1998), Employing EM and pool-based active learning for text classification, ICML.
    """
    return bald(outputs, kind, top=top)


def predictive_entropy(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the entropy of the mean prediction, ``H(mean_k p_k)``, in nats.

    It is high where the models disagree, and where they agree that it is uncertain. Parameters and shapes are those of
    `bald`.

    References
    ----------
    Shannon (1948), A mathematical theory of communication; Gal, Islam and Ghahramani (2017).
    """

    def measure(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return plogp(class_major(block, kind, dtype).mean(dim=1)).sum(dim=0).neg_()

    return by_blocks(check_posterior(outputs), measure, top)


def expected_entropy(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the mean entropy of the predictions, ``mean_k H(p_k)``, in nats: the noise that no label would remove.

    Parameters and shapes are those of `bald`.
    """
    return by_blocks(check_posterior(outputs), lambda block, dtype: mean_and_entropy(block, kind, dtype)[1], top)


def mean_std(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the standard deviation of the probabilities over the posterior, averaged over the classes.

    ``mean_c sqrt(mean_k (p_kc - mean_j p_jc)^2)``. Parameters and shapes are those of `bald`; scores are from 0 to 0.5.

    References
    ----------
    Kampffmeyer, Salberg and Jenssen (2016), Semantic segmentation of small objects and modeling of uncertainty in urban
    remote sensing images, CVPR workshops. Kendall, Badrinarayanan and Cipolla (2017), Bayesian SegNet, BMVC.
    """

    def measure(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        p = class_major(block, kind, dtype)
        return (p - p.mean(dim=1, keepdim=True)).square_().mean(dim=1).sqrt_().mean(dim=0)

    return by_blocks(check_posterior(outputs), measure, top)


def variation_ratio(
    outputs: torch.Tensor,
    kind: Kind = "logits",
    of: Literal["votes", "mean"] = "votes",
    *,
    top: int | None = None,
) -> torch.Tensor:
    """Return the share of predictions that are not the most common one.

    Parameters
    ----------
    outputs, kind, top
        As for `bald`.
    of
        ``"votes"``: ``1 - max_c votes_c / K``, where each posterior sample votes for its most likely class. It takes K
        values at most, so there are many ties. ``"mean"``: ``1 - max_c mean_k p_kc``, the least confidence of the mean.

    References
    ----------
    Freeman (1965), Elementary applied statistics, for votes; Gal, Islam and Ghahramani (2017), for the mean.
    """
    outputs = check_posterior(outputs)
    if of == "votes":
        return 1 - _votes(outputs, kind).amax(dim=1) / outputs.shape[0]

    def measure(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mean = class_major(block, kind, dtype).mean(dim=1)
        ascending = mean.sort(dim=0).values
        others = ascending[:-1].sum(dim=0)  # keeps what 1 - max would round away
        return others.where(ascending[-1].isfinite(), torch.nan)  # sorting puts a NaN last, where it would be lost

    return by_blocks(outputs, measure, top)


def vote_entropy(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return the entropy of the votes of a committee, ``-sum_c v_c log(v_c)`` with v_c = votes_c / K, in nats.

    Each posterior sample votes for its most likely class; the lowest class of equal ones, and for one output column the
    positive class. Parameters and shapes are those of `bald`; there is a small number of distinct values, so many ties.

    References
    ----------
    Engelson and Dagan (1996), Minimizing manual annotation cost in supervised training from corpora, ACL; they divide
    by log(min(K, C)), which ranks alike.
    """
    outputs = check_posterior(outputs)
    shares = _votes(outputs, kind) / outputs.shape[0]
    terms: torch.Tensor = torch.special.entr(shares)
    return terms.sum(dim=1)


def _mutual_information(block: torch.Tensor, kind: Kind, dtype: torch.dtype) -> torch.Tensor:
    if kind == "probabilities":
        p = with_both_classes(block.to(dtype))
        information = plogp(p).mean(dim=0).sub_(plogp(p.mean(dim=0))).t().contiguous().sum(dim=0)
    else:
        mean, expected = mean_and_entropy(block, kind, dtype)
        information = plogp(mean).sum(dim=0).add_(expected).neg_()
    rounding = 16 * torch.finfo(dtype).eps * (1 + math.log(block.shape[2] + 1))
    return information.masked_fill_(information < rounding, 0.0)  # so that models which agree tie


def _votes(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return how many of K posterior samples vote for each class: float64 (B, C); NaN where an output is NaN."""
    samples, n, columns = outputs.shape
    even = 0.0 if kind == "logits" else 0.5
    chosen = (outputs[:, :, 0] >= even).long() if columns == 1 else outputs.argmax(dim=2)
    counts = torch.zeros(n, max(columns, 2), dtype=torch.float64, device=outputs.device)
    counts.scatter_add_(1, chosen.t(), counts.new_ones(n, samples))
    unclear = outputs.isnan().any(dim=2).any(dim=0)
    return counts.masked_fill_(unclear[:, None], torch.nan)
