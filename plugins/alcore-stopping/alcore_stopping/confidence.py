"""A stop criterion on the pool: the learner is confident about every unlabeled sample."""

from __future__ import annotations

import alcore
from alcore.errors import UsageError
from alcore.inference import chunks
from alcore.outputs import check_outputs, class_probabilities, kind_of, least_confidence
from alcore.protocols import RunContext


class Confident:
    """End the run when the learner is confident about every unlabeled sample.

    Parameters
    ----------
    threshold
        The least confidence, 1 less the probability of the most likely class, must be below this for each sample.

    Notes
    -----
    This is the max-confidence criterion of Zhu and Hovy (Active learning for word sense disambiguation with methods for
    addressing the class imbalance problem, EMNLP 2007), with the least confidence as the uncertainty. The pool is
    streamed, up to the first chunk with a less confident sample: at most one more pass over it a step, memory
    O(chunk). There is no state.

    It helps where probabilities are calibrated. It is known to hurt where they aren't: a network that was trained for
    long is confident about everything, even about inputs unlike any that it was trained on.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        if not 0 < threshold <= 1:
            raise UsageError(f"Confident: threshold is {threshold}; it must be above 0 and at most 1.")
        self.threshold = threshold

    @alcore.runhook
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return the reason to stop, or None."""
        if driver.info is not None and driver.info.task != "classification":
            raise UsageError(
                "Confident is for classification, and the task of this data is regression; use another stop criterion."
            )
        kind, count, largest = kind_of(driver.learner), 0, 0.0
        for ids, outputs in chunks(driver):
            probabilities = class_probabilities(check_outputs(outputs).double(), kind)
            unsure = least_confidence(probabilities, "probabilities")
            if not bool((unsure < self.threshold).all()):  # also for NaN
                return None
            count, largest = count + len(ids), max(largest, float(unsure.max()))
        if not count:
            return None
        return (
            f"the learner is sure of each of the {count} unlabeled samples: the uncertainty is {largest:.3g} at most, "
            f"below {self.threshold:g}"
        )
