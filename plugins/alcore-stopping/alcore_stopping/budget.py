"""A stop criterion on a number of labels, or on their cost."""

from __future__ import annotations

import math

import alcore
from alcore.errors import UsageError
from alcore.protocols import RunContext


class Budget:
    """End the run when a number of labels was bought, or a cost was paid for them.

    Parameters
    ----------
    labels
        Number of labels that the run buys; labels that the pool has at the start don't count.
    cost
        Cost of these labels: 1.0 a label, unless the label strategy says otherwise.

    Notes
    -----
    The criterion is asked after the learner was trained and measured with all labels, so the last ones are used. A step
    is never cut short, so the limit may be exceeded by the labels of one step. ``DriverConfig.budget``
    (``--set driver.budget=100``) is never exceeded: a step then asks for fewer samples if it has to. If both `labels`
    and `cost` are given, the first limit that is reached ends the run. The criterion has no state.
    """

    def __init__(self, labels: int | None = None, cost: float | None = None) -> None:
        if labels is None and cost is None:
            raise UsageError(
                "Budget: give it a number of labels, a cost, or both, for instance --set stop.budget.labels=100."
            )
        if labels is not None and labels < 0:
            raise UsageError(f"Budget: labels is {labels}; it must not be negative.")
        if cost is not None and not 0 <= cost < math.inf:
            raise UsageError(f"Budget: cost is {cost}; it must be 0 or more.")
        self.labels, self.cost = labels, cost

    @alcore.runhook
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return the reason to stop, or None."""
        labels, cost = driver.spent()
        if self.labels is not None and labels >= self.labels:
            return f"{labels} labels were bought, and the budget is {self.labels}"
        if self.cost is not None and cost >= self.cost:
            return f"{cost:g} was paid for labels, and the budget is {self.cost:g}"
        return None
