"""Measures of uncertainty: each maps a learner's outputs to one score a sample, higher for a less certain prediction.

For two classes with one output column, all three measures rank samples by the distance of the logit from zero, and are
computed from the logit: in single precision, the entropy of a nearly certain or nearly even prediction has only a few
distinct values, so that ranking by it picks wrong samples. For the same reason, other outputs are scored in double
precision, and from the sum of all probabilities but the largest, since 1 - max(p) would lose small values by rounding.

The score of a sample is the same to the last bit whichever samples are scored with it, so that equal predictions tie.
"""

from __future__ import annotations

import math

import torch

from alcore.errors import UsageError
from alcore.outputs.kinds import Kind, binary_logits, check_outputs, is_binary

_DEEPEST = -745.0  # exp of less is zero in double precision


def least_confidence(outputs: torch.Tensor, kind: Kind = "logits", temperature: float = 1.0) -> torch.Tensor:
    """Return one less the probability of the most likely class.

    Parameters
    ----------
    outputs
        ``(B,)`` or ``(B, 1)`` for two classes, ``(B, C)``, or ``(K, B, C)`` posterior samples, whose mean
        probability counts.
    kind
        ``"logits"`` or ``"probabilities"``.
    temperature
        What logits are divided by; the logits of probabilities are their logarithms.

    Returns
    -------
    torch.Tensor
        Scores, float64, shape (B,). For one output column they are minus the absolute logit, which gives the same
        ranking, in the precision of the logit.

    References
    ----------
    Lewis and Catlett (1994), Heterogeneous uncertainty sampling for supervised learning, ICML.
    """
    if is_binary(check_outputs(outputs)):
        return _nearness(outputs, kind, temperature)
    if _direct(outputs, kind, temperature):
        return _top_and_rest(_probabilities(outputs, kind, temperature))[1]
    _, others = _top_and_rest(_gaps(outputs, kind, temperature).exp_())
    return others / (1 + others)


def margin(outputs: torch.Tensor, kind: Kind = "logits", temperature: float = 1.0) -> torch.Tensor:
    """Return minus the difference between the two largest probabilities.

    Parameters and shapes are those of `least_confidence`.

    References
    ----------
    Scheffer, Decomain and Wrobel (2001), Active hidden Markov models for information extraction, IDA.
    """
    if is_binary(check_outputs(outputs)):
        return _nearness(outputs, kind, temperature)
    if _direct(outputs, kind, temperature):
        first, second = top_two(_probabilities(outputs, kind, temperature))
        return second - first
    gaps = _gaps(outputs, kind, temperature)
    _, second = top_two(gaps)
    return torch.expm1(second) / _total(gaps.exp_())


def entropy(outputs: torch.Tensor, kind: Kind = "logits", temperature: float = 1.0) -> torch.Tensor:
    """Return the Shannon entropy of the predicted class, in nats.

    Parameters and shapes are those of `least_confidence`; for one output column, minus the absolute logit is
    returned, which gives the same ranking.

    References
    ----------
    Shannon (1948), A mathematical theory of communication; Settles (2009), Active learning literature survey.
    """
    if is_binary(check_outputs(outputs)):
        return _nearness(outputs, kind, temperature)
    if _direct(outputs, kind, temperature):
        return _total(torch.special.entr(_probabilities(outputs, kind, temperature)))
    gaps = _gaps(outputs, kind, temperature)
    weights = gaps.exp()
    _, others = _top_and_rest(weights)
    return torch.log1p(others) - _total(weights.mul_(gaps)) / (1 + others)


def check_temperature(temperature: float) -> float:
    """Return `temperature` if logits can be divided by it, else raise `UsageError`."""
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature is {temperature}; it must be positive and finite.")
    return temperature


def _nearness(outputs: torch.Tensor, kind: Kind, temperature: float) -> torch.Tensor:
    exact = kind == "logits" and temperature == 1
    logits = binary_logits(outputs if exact else outputs.double(), kind)
    return -logits.abs() if exact else logits.abs() / -check_temperature(temperature)


def _direct(outputs: torch.Tensor, kind: Kind, temperature: float) -> bool:
    """Return whether to compute from probabilities: they are given, or must be averaged. Logits are more precise."""
    return outputs.dim() == 3 or (kind == "probabilities" and temperature == 1)


def _logits(outputs: torch.Tensor, kind: Kind, temperature: float) -> torch.Tensor:
    """Return logits with the classes on the first axis, along which sums over classes are fastest."""
    logits = outputs.movedim(-1, 0).to(torch.float64, memory_format=torch.contiguous_format)
    logits = logits.log() if kind == "probabilities" else logits
    return logits if check_temperature(temperature) == 1 else logits / temperature


def _gaps(outputs: torch.Tensor, kind: Kind, temperature: float) -> torch.Tensor:
    """Return the logits less the largest logit of each sample: float64, (C, ...)."""
    logits = _logits(outputs, kind, temperature)
    return (logits - logits.amax(dim=0)).clamp_(min=_DEEPEST)


def _probabilities(outputs: torch.Tensor, kind: Kind, temperature: float) -> torch.Tensor:
    """Return probabilities: float64, (C, B), the mean over posterior samples."""
    if outputs.shape[-1] == 1:  # K samples of one column
        other = 1 - outputs.double() if kind == "probabilities" else torch.zeros_like(outputs)
        outputs = torch.cat([other, outputs.double()], dim=-1)
    if kind == "probabilities" and check_temperature(temperature) == 1:
        probabilities = outputs.movedim(-1, 0).double()
    else:
        weights = _gaps(outputs, kind, temperature).exp_()
        probabilities = weights.div_(_total(weights))
    return probabilities if outputs.dim() < 3 else _total(probabilities.movedim(1, 0)) / len(outputs)


def _total(rows: torch.Tensor) -> torch.Tensor:
    """Add up the first axis by folding it; the rounding of torch's own sum depends on the position of a column."""
    while len(rows) > 1:
        half = len(rows) // 2
        rows = torch.cat([rows[:half] + rows[half : 2 * half], rows[2 * half :]])
    return rows[0]


def _top_and_rest(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest value of each column, and the sum of all others; NaN for NaN."""
    top, rest = rows, torch.zeros_like(rows)
    while len(top) > 1:
        half = len(top) // 2
        one, other = top[:half], top[half : 2 * half]
        rest = torch.cat([rest[:half] + rest[half : 2 * half] + torch.minimum(one, other), rest[2 * half :]])
        top = torch.cat([torch.maximum(one, other), top[2 * half :]])
    return top[0], rest[0]


def top_two(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest and the second largest value of each column of (C, B); NaN for NaN."""
    top, second = rows, torch.full_like(rows, -torch.inf)
    while len(top) > 1:
        half = len(top) // 2
        one, other = top[:half], top[half : 2 * half]
        seconds = torch.maximum(second[:half], second[half : 2 * half])
        second = torch.cat([seconds.maximum(torch.minimum(one, other)), second[2 * half :]])
        top = torch.cat([torch.maximum(one, other), top[2 * half :]])
    return top[0], second[0]
