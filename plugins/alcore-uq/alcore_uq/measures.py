"""Measures of uncertainty: each maps a learner's outputs to one score a sample, higher for less sure.

For two classes with one output column all three rank samples alike, namely by how near the logit is to zero.
They are computed from the logit then: the entropy of a nearly certain or nearly even prediction takes only a
handful of distinct values in single precision, so that ranking by it picks wrong samples. Other outputs are
computed in double precision for the same reason.
"""

from __future__ import annotations

import torch

from alcore.outputs import Kind, binary_logits, check_outputs, class_probabilities, is_binary


def least_confidence(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return one less the probability of the most likely class.

    Parameters
    ----------
    outputs
        ``(B,)`` or ``(B, 1)`` for two classes, ``(B, C)``, or ``(K, B, C)`` posterior samples, whose mean
        probability counts.
    kind
        ``"logits"`` or ``"probabilities"``.

    Returns
    -------
    torch.Tensor
        Scores, float64, shape (B,): for one output column minus the absolute logit instead, which ranks alike.

    References
    ----------
    Lewis and Catlett (1994), Heterogeneous uncertainty sampling for supervised learning, ICML.
    """
    if is_binary(check_outputs(outputs)):
        return -binary_logits(outputs.double(), kind).abs()
    ascending = class_probabilities(outputs.double(), kind).sort(dim=1).values
    others = ascending[:, :-1].sum(dim=1)  # keeps what 1 - max would round away
    return others.where(ascending[:, -1].isfinite(), torch.nan)  # sorting puts a NaN last, where it would be lost


def margin(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return minus the difference between the two largest probabilities.

    Parameters and shapes are those of `least_confidence`.

    References
    ----------
    Scheffer, Decomain and Wrobel (2001), Active hidden Markov models for information extraction, IDA.
    """
    if is_binary(check_outputs(outputs)):
        return -binary_logits(outputs.double(), kind).abs()
    best = class_probabilities(outputs.double(), kind).topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def entropy(outputs: torch.Tensor, kind: Kind = "logits") -> torch.Tensor:
    """Return the Shannon entropy of the predicted class, in nats.

    Parameters and shapes are those of `least_confidence`; for one output column minus the absolute logit is
    returned instead, which ranks alike.

    References
    ----------
    Shannon (1948), A mathematical theory of communication; Settles (2009), Active learning literature survey.
    """
    if is_binary(check_outputs(outputs)):
        return -binary_logits(outputs.double(), kind).abs()
    probabilities = class_probabilities(outputs.double(), kind)
    terms: torch.Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=1)
