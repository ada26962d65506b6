"""Measures of uncertainty: class probabilities, float64 (N, C), to a number in a sample, higher for less sure."""

from __future__ import annotations

from typing import Literal

import torch

from alcore_diversity.checks import check_known

Measure = Literal["entropy", "margin", "least_confidence"]


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the Shannon entropy in nats: float64, shape (N,)."""
    terms: torch.Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=1)


def margin(probabilities: torch.Tensor) -> torch.Tensor:
    """Return one less the difference between the two largest probabilities: float64, shape (N,)."""
    best = probabilities.topk(2, dim=1).values
    return 1 - (best[:, 0] - best[:, 1])


def least_confidence(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the probability of all classes but the most likely one: float64, shape (N,)."""
    return probabilities.sort(dim=1).values[:, :-1].sum(dim=1)  # keeps what 1 - max would round away


MEASURES = {"entropy": entropy, "margin": margin, "least_confidence": least_confidence}


def check_measure(owner: str, name: str) -> None:
    """Raise `UsageError` unless there is a measure of this name."""
    check_known(owner, "uncertainty", name, MEASURES)
