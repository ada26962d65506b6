"""The uncertainty query strategy."""

from __future__ import annotations

from typing import Any, Literal

import torch

from alcore.errors import UsageError, check_choice
from alcore.inference import by_position, is_map, kind_of, reduce_map
from alcore.strategies import PointwiseQuery
from alcore.inference import uncertainty as measures
from alcore_uq.estimates import estimate

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
    temperature
        What logits are divided by before the softmax: above 1 for a learner that is too sure of itself. It changes
        the ranking of three classes and more.
    reduce
        How the scores of the positions of a map become one: their ``"mean"``, ``"max"`` or ``"sum"``. Only for
        outputs (B, C, ...) of four axes and more, such as those of segmentation.

    Notes
    -----
    With p(c) the probability of class c, p1 and p2 the two largest: least confidence is 1 - p1, margin p2 - p1, and
    entropy -sum p(c) ln p(c). The pool is streamed: time O(N C) beside the forward passes, memory
    O(chunk + max_samples). Samples are ranked by the measure in double precision, but only those that a look in
    single precision doesn't rule out.

    It helps where the classifier is roughly calibrated. It is known to hurt at the very start, when the classifier
    knows too little, in large batches, where it asks for near-duplicates, and where labels are noisy.

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
        reduce_map(torch.zeros(1, 1), reduce)  # refuses what it doesn't know
        self.measure, self.temperature, self.reduce = measure, measures.check_temperature(temperature), reduce

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
        kind = kind_of(self.driver.learner)
        if not is_map(outputs):
            return _MEASURES[self.measure](outputs, kind, self.temperature)
        flat = (by_position(one[None], kind) for one in outputs)  # one by one: a map may be large
        scores = [_MEASURES[self.measure](positions, kind, self.temperature) for positions in flat]
        return reduce_map(torch.stack(scores), self.reduce)

    def estimate(self, outputs: Any) -> tuple[torch.Tensor, float] | None:
        """Return the scores of class logits in single precision, and the most they can be wrong by."""
        if kind_of(self.driver.learner) != "logits" or not isinstance(outputs, torch.Tensor):
            return None
        return estimate(self.measure, outputs, self.temperature)
