"""Posterior samples as class probabilities, with the classes first.

Torch is slow where it reduces over a short last axis, such as ten classes. Here the classes stand first, in blocks that
fit into the processor's cache, and the K samples of the posterior next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from alcore.errors import UsageError
from alcore.inference.outputs import Kind, check_outputs

_BLOCK = 2**20  # bytes
_ALIGNED = 64  # samples; where a block ends in the middle of a vector register, equal samples get unequal scores


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
            f"outputs of shape {tuple(outputs.shape)} are no posterior samples, which have shape (K, B, C), or (K, B) "
            "for two classes."
        )
    if outputs.dim() == 2:
        outputs = outputs[:, :, None]
    if not outputs.shape[0] or not outputs.shape[2]:
        raise UsageError(f"outputs of shape {tuple(outputs.shape)} hold no sample of the posterior, or no class.")
    return outputs


def class_major(outputs: torch.Tensor, kind: Kind, dtype: torch.dtype) -> torch.Tensor:
    """Return probabilities with the classes first.

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
        return with_both_classes(outputs.to(dtype)).permute(2, 0, 1)
    _, scaled, total = _exponentials(outputs, dtype)
    return scaled.div_(total)


def mean_and_entropy(outputs: torch.Tensor, kind: Kind, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean over the posterior, and the mean entropy of its samples.

    Parameters are those of `class_major`.

    Returns
    -------
    tuple
        Mean probabilities (C, B), and the mean over k of the entropies in nats (B,).

    Notes
    -----
    The entropy of logits z with z <= 0 is log(S) - sum(z exp(z)) / S, S = sum(exp(z)): one exponential a class, and one
    logarithm a sample. For probabilities the sum over k comes first, since the classes are the last axis.
    """
    if kind == "probabilities":
        p = with_both_classes(outputs.to(dtype))
        return p.mean(dim=0).t().contiguous(), plogp(p).mean(dim=0).t().contiguous().sum(dim=0).neg_()
    shifted, scaled, total = _exponentials(outputs, dtype)
    entropies = total.log() - shifted.mul_(scaled).sum(dim=0).div_(total)
    return scaled.div_(total).mean(dim=1), entropies.mean(dim=0)


def plogp(p: torch.Tensor) -> torch.Tensor:
    """Return p log(p), and 0 for 0; `torch.xlogy` and `torch.special.entr` take three times as long."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log_().mul_(p)


def probabilities(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
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
        result[:, part] = class_major(outputs[:, part], kind, dtype).permute(1, 2, 0)
    return result


def by_blocks(
    outputs: torch.Tensor, measure: Callable[[torch.Tensor, torch.dtype], torch.Tensor], top: int | None
) -> torch.Tensor:
    """Return a measure of each sample, computed block by block.

    Parameters
    ----------
    outputs
        As `check_posterior` returns them: (K, B, C).
    measure
        Maps a block (K, b, C) and a floating-point type to scores (b,), of order 1 at most for each nat.
    top
        How many of the highest scores must be exact; all where it is None.

    Returns
    -------
    torch.Tensor
        Scores, float64 (B,). Where `top` is given, those that are certainly not among the `top` highest come from
        single precision, which takes half the time; the `top` highest and their order are those of double precision.
    """
    if top is None or top >= outputs.shape[1] or outputs.dtype == torch.float64:  # rounded to single, it may overflow
        return _measured(outputs, measure, torch.float64)
    scores = _measured(outputs, measure, torch.float32)
    samples, _, classes = outputs.shape
    # Bounds the rounding of a sum of C terms p log(p) and of a mean over K in single precision, with room to spare
    slack = 2.0**-22 * (samples + classes + 16) * (2 + torch.log(torch.tensor(max(classes, 2.0))).item())
    least = scores.topk(top).values.min() if top else torch.tensor(torch.inf)
    close = ~(scores < least - 2 * slack)  # with NaN, which double precision may not give
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
    """Return logits less their maximum z, exp(z), and their sum over classes: (C, K, B) twice, and (K, B)."""
    samples, n, columns = outputs.shape
    shifted = torch.empty(max(columns, 2), samples, n, dtype=dtype, device=outputs.device)
    shifted[-columns:] = outputs.permute(2, 0, 1)
    if columns == 1:
        shifted[0] = 0  # the sigmoid is a softmax over this and the one logit
    shifted.sub_(shifted.amax(dim=0)).clamp_min_(-700 if dtype == torch.float64 else -80)  # -inf * exp(-inf) is NaN
    scaled = shifted.exp()
    return shifted, scaled, scaled.sum(dim=0)


def with_both_classes(p: torch.Tensor) -> torch.Tensor:
    """Return probabilities (K, B, C); the other class is added where there is one column."""
    return torch.cat([1 - p, p], dim=2) if p.shape[2] == 1 else p
