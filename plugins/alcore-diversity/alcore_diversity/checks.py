"""Checks of features and outputs, and of learners that must be classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch

from alcore.errors import QueryError, UsageError, did_you_mean
from alcore.inference import Features
from alcore.outputs import class_probabilities, entropy, kind_of, least_confidence, margin, predicted_classes
from alcore.protocols import RunContext
from alcore_diversity.distances import joined, largest

_MOST = torch.finfo(torch.float32).max

Measure = Literal["entropy", "margin", "least_confidence"]
_MEASURES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "entropy": lambda p: entropy(p, "probabilities"),
    "margin": lambda p: 1 + margin(p, "probabilities"),
    "least_confidence": lambda p: least_confidence(p, "probabilities"),
}


def refuse_non_finite(*samples: Features) -> None:
    """Raise `QueryError` if features are NaN, infinite, or too large for float32; the message names the samples."""
    for part in samples:
        if not largest(part.features) <= _MOST:
            _refuse(part.ids, ~(part.features.abs() <= _MOST).all(dim=1), "features")


def chosen_features(candidates: Features, labeled: Features, pending: Features | None) -> torch.Tensor:
    """Return the features of labeled and pending samples, after those of all were checked: shape (L + P, D)."""
    others = (labeled,) if pending is None else (labeled, pending)
    refuse_non_finite(candidates, *others)
    return joined(candidates.features, *(other.features for other in others))


def with_pending(candidates: Features, pending: Features | None) -> tuple[Features, int]:
    """Return candidates after pending samples, checked, and how many are pending; their ids are not in order."""
    if pending is None or not len(pending.ids):
        refuse_non_finite(candidates)
        return candidates, 0
    refuse_non_finite(candidates, pending)
    axis = 1 if candidates.outputs.dim() == 3 else 0
    ids = torch.cat([pending.ids, candidates.ids])
    features = torch.cat([pending.features, candidates.features])
    return Features(ids, features, torch.cat([pending.outputs, candidates.outputs], dim=axis)), len(pending.ids)


def probabilities(samples: Features, context: RunContext) -> torch.Tensor:
    """Return class probabilities: float64, shape (N, C), C of at least 2.

    Raises
    ------
    QueryError
        If one is NaN; the message names the samples.
    """
    shares = class_probabilities(samples.outputs.double(), kind_of(context.learner))
    if not bool(torch.isfinite(shares.sum())):
        _refuse(samples.ids, ~torch.isfinite(shares).all(dim=1), "outputs")
    return shares


def predicted(samples: Features, context: RunContext) -> torch.Tensor:
    """Return the most likely class of each sample: int64, shape (N,).

    Raises
    ------
    QueryError
        If an output is NaN; the message names the samples.
    """
    outputs = samples.outputs
    if outputs.numel() and bool(outputs.amax().isnan()):
        rows = outputs.movedim(1, 0) if outputs.dim() == 3 else outputs
        _refuse(samples.ids, rows.isnan().flatten(1).any(dim=1) if rows.dim() > 1 else rows.isnan(), "outputs")
    return predicted_classes(outputs, kind_of(context.learner))


def refuse_unless_classifier(context: RunContext) -> None:
    """Raise `UsageError` if the learner doesn't give class probabilities."""
    if context.info is not None and context.info.task != "classification":
        raise UsageError(
            f"it uses class probabilities, and the task of this data is {context.info.task}; use kcenter, typiclust or "
            "probcover, which use features alone."
        )
    outputs = context.probe()
    if outputs is not None:
        class_probabilities(outputs, kind_of(context.learner))


def check_known(owner: str, name: str, value: str, names: Iterable[str]) -> None:
    """Raise `UsageError` unless a parameter has one of the known values; the message names the nearest."""
    words = list(names)
    if value not in words:
        raise UsageError(f"{owner}: {name} is {value!r}; {did_you_mean(value, words)}.")


def check_measure(owner: str, name: str) -> None:
    """Raise `UsageError` unless there is an uncertainty measure of this name."""
    check_known(owner, "uncertainty", name, _MEASURES)


def uncertainty_of(measure: Measure, p: torch.Tensor) -> torch.Tensor:
    """Return the uncertainty of class probabilities (N, C), not negative: float64, shape (N,).

    ``"margin"`` is 1 less the difference between the two largest probabilities.
    """
    return _MEASURES[measure](p)


def _refuse(ids: torch.Tensor, bad: torch.Tensor, what: str) -> None:
    named = ", ".join(map(str, ids[bad][:5].tolist()))
    raise QueryError(
        f"the {what} of sample {named} are not finite, so samples can't be compared; look at its inputs, or at the "
        "learner's outputs for it."
    )
