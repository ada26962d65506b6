"""What strategies refuse: features and outputs that are no numbers, and learners that are no classifiers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from alcore.errors import QueryError, UsageError, did_you_mean
from alcore.inference import Features, class_probabilities, kind_of
from alcore_diversity.distances import largest

if TYPE_CHECKING:
    from alcore.driver import Driver

_MOST = torch.finfo(torch.float32).max


def refuse_non_finite(*embedded: Features) -> None:
    """Raise `QueryError` that names the samples with features that are NaN, infinite, or beyond single precision."""
    for part in embedded:
        if not largest(part.features) <= _MOST:
            _refuse(part.ids, ~(part.features.abs() <= _MOST).all(dim=1), "features")


def probabilities(embedded: Features, driver: Driver) -> torch.Tensor:
    """Return class probabilities: float64, shape (N, C), C of at least 2.

    Raises
    ------
    QueryError
        When one is NaN; it names the samples.
    """
    found = class_probabilities(embedded.outputs.double(), kind_of(driver.learner))
    if not bool(torch.isfinite(found.sum())):
        _refuse(embedded.ids, ~torch.isfinite(found).all(dim=1), "outputs")
    return found


def refuse_unless_classifier(driver: Driver) -> None:
    """Raise `UsageError`, before anything is trained, if there are no class probabilities to be had."""
    if driver.info is not None and driver.info.task != "classification":
        raise UsageError(
            f"it looks at class probabilities, and the task of this data is {driver.info.task}; use kcenter, typiclust "
            "or probcover, which look at features alone."
        )
    outputs = driver.probe()
    if outputs is not None:
        class_probabilities(outputs, kind_of(driver.learner))


def check_known(owner: str, name: str, value: str, known: Iterable[str]) -> None:
    """Raise `UsageError` unless a parameter has one of the known values; it says which is nearest."""
    words = list(known)
    if value not in words:
        raise UsageError(f"{owner}: {name} is {value!r}; {did_you_mean(value, words)}.")


def _refuse(ids: torch.Tensor, bad: torch.Tensor, what: str) -> None:
    named = ", ".join(map(str, ids[bad][:5].tolist()))
    raise QueryError(
        f"the {what} of sample {named} are not finite, so samples can't be compared; look at its inputs, or at the "
        "learner's outputs for it."
    )
