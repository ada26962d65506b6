"""A stop criterion on what was bought: a number of labels, or what they cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import alcore
from alcore.errors import UsageError
from alcore.store import Run

if TYPE_CHECKING:
    from alcore.driver import Driver

_BOUGHT = "SELECT COUNT(*) AS labels, COALESCE(SUM(cost), 0) AS cost FROM labels WHERE superseded = 0 AND step < ?"


class Budget:
    """End the run when so many labels were bought, or so much was paid for them.

    Parameters
    ----------
    labels
        Number of labels that this run has bought; those that were there at the start don't count.
    cost
        What was paid for them: 1.0 a label, unless the label strategy says otherwise.

    Notes
    -----
    The criterion is asked when the learner has been trained and measured with all labels, so the last ones aren't
    wasted. A step is never cut short, so the limit may be passed by what one step buys. ``DriverConfig.budget``
    (``--set driver.budget=100``) is the other way: it is never passed, and a step asks for fewer samples where it has
    to. Of the two limits the first that is reached ends the run. There is no state: the run directory knows.
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
    def alcore_should_stop(self, driver: Driver) -> str | None:
        """Return the reason to stop, or None."""
        ((labels, cost),) = Run(driver.log_dir).read(_BOUGHT, driver.active_learning_step_idx)
        if self.labels is not None and labels >= self.labels:
            return f"{labels} labels were bought, and the budget is {self.labels}"
        if self.cost is not None and cost >= self.cost:
            return f"{cost:g} was paid for labels, and the budget is {self.cost:g}"
        return None
