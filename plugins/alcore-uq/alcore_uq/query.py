"""The uncertainty query strategy."""

from __future__ import annotations

from typing import Any, Literal

import torch

from alcore.errors import UsageError
from alcore.outputs import kind_of
from alcore.strategies import PointwiseQuery
from alcore_uq import measures

_MEASURES = {
    "least_confidence": measures.least_confidence,
    "margin": measures.margin,
    "entropy": measures.entropy,
}


class ClassifierUQQuery(PointwiseQuery):
    """Ask for the samples the classifier is least sure about.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    measure
        What counts as unsure: ``"least_confidence"`` (a low largest probability), ``"margin"`` (a small
        difference between the two largest) or ``"entropy"``. For two classes they choose the same samples.

    Notes
    -----
    The pool is streamed: time O(N) forward passes, memory O(chunk + max_samples). It helps where the classifier
    is roughly calibrated. It is known to hurt at the very start, when the classifier knows too little, and in
    large batches, where it asks for near-duplicates.
    """

    def __init__(
        self,
        max_samples: int = 10,
        measure: Literal["least_confidence", "margin", "entropy"] = "least_confidence",
    ) -> None:
        super().__init__(max_samples)
        if measure not in _MEASURES:
            raise UsageError(f"ClassifierUQQuery: measure is {measure!r}; it must be one of {', '.join(_MEASURES)}.")
        self.measure = measure

    def check(self) -> None:
        """Refuse regression, and outputs that are no classifier's."""
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError(
                "it ranks by class probabilities, and the task of this data is regression; use another query strategy."
            )
        super().check()

    def score(self, outputs: Any) -> torch.Tensor:
        """Return how unsure the classifier is about each sample: float64, shape (B,)."""
        return _MEASURES[self.measure](outputs, kind_of(self.driver.learner))
