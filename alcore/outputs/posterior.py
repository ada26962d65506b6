"""Posterior samples: their class probabilities, and measures of the disagreement among them.

Each measure maps posterior samples to one score for each sample of the pool, the higher the more they disagree. Outputs
are ``(K, B, C)`` for K samples of a posterior, B samples of the pool and C classes; ``(K, B, 1)`` or ``(K, B)`` for two
classes with one output column. `kind` says whether they are ``"logits"`` or ``"probabilities"``. If one of a sample's
outputs is NaN, its score is NaN.

Measures are computed in double precision, block by block, so that they need little memory beside the outputs. Torch is
slow at reductions over a short last axis, such as ten classes. Therefore the classes are the first axis of a block,
which fits into the processor's cache, and the K posterior samples the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from alcore.errors import UsageError
from alcore.outputs.kinds import Kind, check_outputs

_BLOCK = 2**20  # bytes
_ALIGNED = 64  # samples; equal samples get unequal scores where a block ends in the middle of a vector register


def bald(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the mutual information between the class and the model: BALD.

    ``I(y; w) = H(mean_k p_k) - mean_k H(p_k)``, in nats: the information about the model that the class would give. It
    is also the mean Kullback-Leibler divergence of the members of a committee from their mean.

    Parameters
    ----------
    outputs
        Posterior samples ``(K, B, C)``, ``(K, B, 1)`` or ``(K, B)``.
    kind
        ``"logits"`` or ``"probabilities"``.
    top
        Compute in double precision only scores that may be among the `top` highest, and the others in single precision,
        which takes half the time. The `top` highest scores and their ranks are the same. None computes all scores in
        double precision.

    Returns
    -------
    torch.Tensor
        Scores, float64 (B,), from 0 to log(min(K, C)). Scores that rounding errors could explain are 0.

    References
    ----------
    Houlsby, Huszar, Ghahramani and Lengyel (2011), Bayesian active learning for classification and preference
    learning, arXiv:1112.5745. Gal, Islam and Ghahramani (2017), Deep Bayesian active learning with image data, ICML.
    McCallum and Nigam (1998), Employing EM and pool-based active learning for text classification, ICML.
    """
    return _by_blocks(check_posterior(outputs), lambda block, dtype: _mutual_information(block, kind, dtype), top)


def expected_entropy(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the mean entropy of the predictions, ``mean_k H(p_k)``, in nats, which no label would reduce.

    Parameters and shapes are those of `bald`.
    """
    return _by_blocks(check_posterior(outputs), lambda block, dtype: _mean_and_entropy(block, kind, dtype)[1], top)


def mean_std(outputs: torch.Tensor, kind: Kind = "logits", *, top: int | None = None) -> torch.Tensor:
    """Return the standard deviation of the probabilities over the posterior, averaged over the classes.

    ``mean_c sqrt(mean_k (p_kc - mean_j p_jc)^2)``. Parameters and shapes are those of `bald`; scores are from 0 to 0.5.

    References
    ----------
    Kampffmeyer, Salberg and Jenssen (2016), Semantic segmentation of small objects and modeling of uncertainty in urban
    remote sensing images, CVPR workshops. Kendall, Badrinarayanan and Cipolla (2017), Bayesian SegNet, BMVC.
    """

    def measure(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        p = _class_major(block, kind, dtype)
        return (p - p.mean(dim=1, keepdim=True)).square_().mean(dim=1).sqrt_().mean(dim=0)

    return _by_blocks(check_posterior(outputs), measure, top)


def variation_ratio(
    outputs: torch.Tensor,
    kind: Kind = "logits",
    of: Literal["votes", "mean"] = "votes",
    *,
    top: int | None = None,
) -> torch.Tensor:
    """Return the share of posterior samples that don't predict the most common class.

    Parameters
    ----------
    outputs, kind, top
        As for `bald`.
    of
        ``"votes"``: ``1 - max_c votes_c / K``, where each posterior sample votes for its most likely class. There are
        at most K distinct values, so many ties. ``"mean"``: ``1 - max_c mean_k p_kc``, the least confidence of the
        mean.

    References
    ----------
    Freeman (1965), Elementary applied statistics, for votes; Gal, Islam and Ghahramani (2017), for the mean.
    """
    outputs = check_posterior(outputs)
    if of == "votes":
        return 1 - _votes(outputs, kind).amax(dim=1) / outputs.shape[0]

    def measure(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mean = _class_major(block, kind, dtype).mean(dim=1)
        ascending = mean.sort(dim=0).values
        others = ascending[:-1].sum(dim=0)  # 1 - max would lose small values by rounding
        return others.where(ascending[-1].isfinite(), torch.nan)  # sort puts NaN last, and the sum omits the last

    return _by_blocks(outputs, measure, top)


def vote_entropy(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return the entropy of the votes of a committee, ``-sum_c v_c log(v_c)`` with v_c = votes_c / K, in nats.

    Each posterior sample votes for its most likely class; of equally likely classes for the lowest, or for the positive
    class if there is one output column. Parameters and shapes are those of `bald`. There are few distinct values, so
    many ties.

    References
    ----------
    Engelson and Dagan (1996), Minimizing manual annotation cost in supervised training from corpora, ACL; they divide
    by log(min(K, C)), which ranks alike.
    """
    outputs = check_posterior(outputs)
    shares = _votes(outputs, kind) / outputs.shape[0]
    terms: torch.Tensor = torch.special.entr(shares)
    return terms.sum(dim=1)


def check_posterior(outputs: torch.Tensor) -> torch.Tensor:
    """Return posterior samples as (K, B, C), or (K, B, 1) for one output column, or raise `UsageError`.

    Parameters
    ----------
    outputs
        ``(K, B, C)``; ``(K, B, 1)`` or ``(K, B)`` for two classes with one output column.
    """
    outputs = check_outputs(outputs)
    if outputs.dim() == 1:
        raise UsageError(
            f"outputs of shape {tuple(outputs.shape)} are not posterior samples, which have shape (K, B, C), or (K, B) "
            "for two classes."
        )
    if outputs.dim() == 2:
        outputs = outputs[:, :, None]
    if not outputs.shape[0] or not outputs.shape[2]:
        raise UsageError(f"outputs of shape {tuple(outputs.shape)} have no sample of the posterior, or no class.")
    return outputs


def _class_major(outputs: torch.Tensor, kind: Kind, dtype: torch.dtype) -> torch.Tensor:
    """Return class probabilities, with the classes on the first axis.

    Parameters
    ----------
    outputs
        ``(K, B, C)``, or ``(K, B, 1)`` for two classes.
    kind
        ``"logits"`` or ``"probabilities"``.
    dtype
        Floating-point type of the result.

    Returns
    -------
    torch.Tensor
        Shape (C, K, B) with C of at least 2; it may share memory with `outputs`, so it must not be written to.
    """
    if kind == "probabilities":
        return _with_both_classes(outputs.to(dtype)).permute(2, 0, 1)
    _, scaled, total = _exponentials(outputs, dtype)
    return scaled.div_(total)


def _mean_and_entropy(outputs: torch.Tensor, kind: Kind, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over the posterior, and the mean entropy of its samples.

    Parameters are those of `_class_major`.

    Returns
    -------
    tuple
        Mean probabilities (C, B), and the mean over k of the entropies in nats (B,).

    Notes
    -----
    The entropy of logits z with z <= 0 is log(S) - sum(z exp(z)) / S, S = sum(exp(z)): one exponential for each class
    and one logarithm for each sample. Of probabilities the sum over k comes first: the classes are their last axis.
    """
    if kind == "probabilities":
        p = _with_both_classes(outputs.to(dtype))
        return p.mean(dim=0).t().contiguous(), plogp(p).mean(dim=0).t().contiguous().sum(dim=0).neg_()
    shifted, scaled, total = _exponentials(outputs, dtype)
    entropies = total.log() - shifted.mul_(scaled).sum(dim=0).div_(total)
    return scaled.div_(total).mean(dim=1), entropies.mean(dim=0)


def plogp(p: torch.Tensor) -> torch.Tensor:
    """Return p log(p), which is 0 for p = 0; `torch.xlogy` and `torch.special.entr` take three times as long."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log_().mul_(p)


def posterior_probabilities(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return the class probabilities of each posterior sample.

    Parameters
    ----------
    outputs
        ``(K, B, C)``; ``(K, B, 1)`` or ``(K, B)`` for two classes with one output column.
    kind
        ``"logits"`` or ``"probabilities"``.

    Returns
    -------
    torch.Tensor
        Shape (K, B, C) with C of at least 2: float64 for float64 outputs, else float32. It may be `outputs` itself.
    """
    outputs = check_posterior(outputs)
    samples, n, classes = outputs.shape
    dtype = torch.float64 if outputs.dtype == torch.float64 else torch.float32
    if kind == "probabilities" and classes > 1:
        return outputs.to(dtype)
    result = torch.empty(samples, n, max(classes, 2), dtype=dtype, device=outputs.device)
    for part in _parts(outputs, dtype):
        result[:, part] = _class_major(outputs[:, part], kind, dtype).permute(1, 2, 0)
    return result


def _by_blocks(
    outputs: torch.Tensor, measure: Callable[[torch.Tensor, torch.dtype], torch.Tensor], top: int | None
) -> torch.Tensor:
    """Return a measure of each sample, computed block by block.

    Parameters
    ----------
    outputs
        As `check_posterior` returns them: (K, B, C).
    measure
        Maps a block (K, b, C) and a floating-point type to scores (b,), in nats or smaller units.
    top
        How many of the highest scores must be exact; all where it is None.

    Returns
    -------
    torch.Tensor
        Scores, float64 (B,). If `top` is given, scores that are certainly not among the `top` highest are computed in
        single precision; the `top` highest and their order are those of double precision.
    """
    if (
        top is None or top >= outputs.shape[1] or outputs.dtype == torch.float64
    ):  # which may overflow in single precision
        return _measured(outputs, measure, torch.float64)
    scores = _measured(outputs, measure, torch.float32)
    samples, _, classes = outputs.shape
    # An upper bound of the rounding error of a sum of C terms p log(p) and of a mean over K in single precision
    slack = 2.0**-22 * (samples + classes + 16) * (2 + torch.log(torch.tensor(max(classes, 2.0))).item())
    least = scores.topk(top).values.min() if top else torch.tensor(torch.inf)
    close = ~(scores < least - 2 * slack)  # also NaN, which double precision may avoid
    if bool(close.any()):
        scores[close] = _measured(outputs[:, close], measure, torch.float64)
    return scores


def _measured(
    outputs: torch.Tensor, measure: Callable[[torch.Tensor, torch.dtype], torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    scores = torch.empty(outputs.shape[1], dtype=torch.float64, device=outputs.device)
    for part in _parts(outputs, dtype):
        block = outputs[:, part]
        n = block.shape[1]
        if n % _ALIGNED:
            block = torch.cat([block, block[:, -1:].expand(-1, -n % _ALIGNED, -1)], dim=1)
        scores[part] = measure(block, dtype)[:n].to(scores.dtype)
    return scores


def _parts(outputs: torch.Tensor, dtype: torch.dtype) -> Iterator[slice]:
    samples, n, classes = outputs.shape
    rows = max(1, _BLOCK // (samples * max(classes, 2) * dtype.itemsize) // _ALIGNED) * _ALIGNED
    return (slice(start, start + rows) for start in range(0, n, rows))


def _exponentials(outputs: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return z, the logits less their maximum, and exp(z), both (C, K, B), and the sum of exp(z) over C, (K, B)."""
    samples, n, columns = outputs.shape
    shifted = torch.empty(max(columns, 2), samples, n, dtype=dtype, device=outputs.device)
    shifted[-columns:] = outputs.permute(2, 0, 1)
    if columns == 1:
        shifted[0] = 0  # the sigmoid is the softmax over 0 and the logit
    shifted.sub_(shifted.amax(dim=0)).clamp_min_(-700 if dtype == torch.float64 else -80)  # -inf * exp(-inf) is NaN
    scaled = shifted.exp()
    return shifted, scaled, scaled.sum(dim=0)


def _with_both_classes(p: torch.Tensor) -> torch.Tensor:
    """Return probabilities (K, B, C); one column becomes two classes."""
    return torch.cat([1 - p, p], dim=2) if p.shape[2] == 1 else p


def _mutual_information(block: torch.Tensor, kind: Kind, dtype: torch.dtype) -> torch.Tensor:
    if kind == "probabilities":
        p = _with_both_classes(block.to(dtype))
        information = plogp(p).mean(dim=0).sub_(plogp(p.mean(dim=0))).t().contiguous().sum(dim=0)
    else:
        mean, expected = _mean_and_entropy(block, kind, dtype)
        information = plogp(mean).sum(dim=0).add_(expected).neg_()
    rounding = 16 * torch.finfo(dtype).eps * (1 + math.log(block.shape[2] + 1))
    return information.masked_fill_(information < rounding, 0.0)  # so that samples on which all models agree tie


def _votes(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return how many of K posterior samples vote for each class: float64 (B, C); NaN where an output is NaN."""
    samples, n, columns = outputs.shape
    even = 0.0 if kind == "logits" else 0.5
    chosen = (outputs[:, :, 0] >= even).long() if columns == 1 else outputs.argmax(dim=2)
    counts = torch.zeros(n, max(columns, 2), dtype=torch.float64, device=outputs.device)
    counts.scatter_add_(1, chosen.t(), counts.new_ones(n, samples))
    unclear = outputs.isnan().any(dim=2).any(dim=0)
    return counts.masked_fill_(unclear[:, None], torch.nan)
