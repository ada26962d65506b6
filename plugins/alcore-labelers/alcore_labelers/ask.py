"""The label strategy that waits for answers which are told to the run from outside."""

from __future__ import annotations

import math
from typing import Any

from alcore.errors import UsageError, Waiting
from alcore.protocols import LabelQueue, QueryQueue
from alcore.strategies import BaseLabel


class AskLabelStrategy(BaseLabel):
    """Wait for answers that people give with ``alcore tell``, or a program with ``driver.tell()``.

    Where too few answers are there the run ends with the status ``waiting``, and ``alcore resume`` goes on with it.

    Parameters
    ----------
    min_labels
        How many of a step's requests must be answered before the run goes on: labeled, failed or withdrawn. All of
        them if it is not given. The others stay open; a later step takes their answers in.
    max_wait
        Seconds after which the run goes on with the answers that are there, from when the step waited first. There is
        no limit if it is not given. It is looked at when the run is resumed.
    """

    idempotent = True  # it takes no request out
    waits = True

    def __init__(self, min_labels: int | None = None, max_wait: float | None = None) -> None:
        if min_labels is not None and min_labels < 0:
            raise UsageError(f"AskLabelStrategy: min_labels is {min_labels}; it must not be negative.")
        if max_wait is not None and not 0 <= max_wait < math.inf:
            raise UsageError(f"AskLabelStrategy: max_wait is {max_wait}; it must be a number of seconds, at least 0.")
        self.min_labels, self.max_wait = min_labels, max_wait

    def label(self, queue_to_label: QueryQueue, serialize_queue: LabelQueue, *args: Any, **kwargs: Any) -> None:
        """Raise `Waiting` unless enough requests of the step are answered; nothing is taken out of a queue."""
        del queue_to_label
        requested, answered = serialize_queue.progress()
        wanted = requested if self.min_labels is None else min(self.min_labels, requested)
        if answered < wanted:
            step = self.driver.active_learning_step_idx
            enough = "" if wanted == requested else f", and {wanted} are enough"
            raise Waiting(f"{answered} of {requested} requests of step {step} are answered{enough}", self.max_wait)
