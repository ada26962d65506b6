"""The uncertainty query strategy."""

from __future__ import annotations

from typing import Any, Literal

import torch

from alcore.errors import UsageError, check_choice
from alcore.outputs import (
    by_position,
    check_temperature,
    entropy,
    is_binary,
    is_map,
    kind_of,
    least_confidence,
    margin,
    reduce_map,
)
from alcore.strategies import PointwiseQuery
from alcore_uq.estimates import estimate

_MEASURES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}


class ClassifierUQQuery(PointwiseQuery):
    """Ask for the samples about which the classifier is least certain.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    measure
        Measure of uncertainty: ``"least_confidence"`` (a low largest probability), ``"margin"`` (a small
        difference between the two largest) or ``"entropy"``. For two classes they choose the same samples.
    temperature
        Logits are divided by this before the softmax; above 1 for an overconfident learner. It changes the ranking
        only for three classes and more.
    reduce
        Score of a map from the scores of its positions: their ``"mean"``, ``"max"`` or ``"sum"``. Only for outputs
        (B, C, ...) of four axes and more, as in segmentation.

    Notes
    -----
    With p(c) the probability of class c, p1 and p2 the two largest: least confidence is 1 - p1, margin p2 - p1, and
    entropy -sum p(c) ln p(c). The pool is streamed: time O(N C) beside the forward passes, memory
    O(chunk + max_samples). Samples are ranked by the measure in double precision; those that an estimate in
    single precision rules out are not scored exactly.

    It helps where the classifier is roughly calibrated. It is known to hurt with very few labels, in large
    batches, where it asks for near-duplicates, and where labels are noisy.

    References
    ----------
    Lewis and Gale (1994), A sequential algorithm for training text classifiers, SIGIR; Scheffer, Decomain and Wrobel
    (2001), Active hidden Markov models for information extraction, IDA; Settles (2009), Active learning literature
    survey.
    """

    def __init__(
        self,
        max_samples: int = 10,
        measure: Literal["least_confidence", "margin", "entropy"] = "least_confidence",
        temperature: float = 1.0,
        reduce: Literal["mean", "max", "sum"] = "mean",
    ) -> None:
        super().__init__(max_samples)
        check_choice("ClassifierUQQuery", "measure", measure, _MEASURES)
        reduce_map(torch.zeros(1, 1), reduce)  # raises if it is unknown
        self.measure, self.temperature, self.reduce = measure, check_temperature(temperature), reduce

    def check(self) -> None:
        """Raise `UsageError` for regression, and for outputs that are not those of a classifier."""
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError(
                "it ranks by class probabilities, and the task of this data is regression; use another query strategy."
            )
        super().check()

    def score(self, outputs: Any) -> torch.Tensor:
        """Return the uncertainty of each prediction: float64, shape (B,)."""
        kind = kind_of(self.driver.learner)
        if not is_map(outputs):
            return _MEASURES[self.measure](outputs, kind, self.temperature)
        flat = (by_position(output[None], kind) for output in outputs)  # one sample at a time, since a map may be large
        scores = [_MEASURES[self.measure](positions, kind, self.temperature) for positions in flat]
        return reduce_map(torch.stack(scores), self.reduce)

    def worth(self, outputs: Any) -> torch.Tensor:
        """Return the uncertainty as a number from 0: the measure, with the margin 1 - (p1 - p2): float64, (B,)."""
        scores: torch.Tensor = self.score(outputs)
        if not is_map(outputs) and is_binary(outputs):  # then they are minus the absolute logit
            smaller = torch.sigmoid(scores.double())
            if self.measure == "entropy":
                both: torch.Tensor = torch.special.entr(torch.stack([smaller, 1 - smaller]))
                return both.sum(dim=0)
            return smaller if self.measure == "least_confidence" else 2 * smaller
        return scores + 1 if self.measure == "margin" else scores

    def estimate(self, outputs: Any) -> tuple[torch.Tensor, float] | None:
        """Return the scores of class logits in single precision, and an upper bound of their error."""
        if kind_of(self.driver.learner) != "logits" or not isinstance(outputs, torch.Tensor):
            return None
        return estimate(self.measure, outputs, self.temperature)
