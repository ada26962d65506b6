"""Why a run ends when a query phase asked for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alcore.config import DriverConfig
    from alcore.driver import Driver

NOTHING_LABELLED = "nothing is labelled yet"
"""How the reason begins where a start waits for its labels; late ones let the run go on."""


def end_of_steps(config: DriverConfig, done: int) -> str | None:
    """Give the reason to end the run where so many steps are enough."""
    steps = config.max_active_learning_steps
    return f"all {steps} steps are done" if steps is not None and done >= steps else None


def end_of_pool(driver: Driver, *, started: bool, settled: bool) -> str | None:
    """Give the reason to end the run when nothing was asked for.

    Parameters
    ----------
    driver
        Behind the labeling phase of a step.
    started
        Whether nothing was labelled when the step began, so that the start strategy was to choose.
    settled
        Whether any request was labelled or given up in this step.
    """
    queue, candidates = driver.query_queue, driver._candidates
    if queue.asked or (started and settled):  # what a start waited for came, and the next step goes on from there
        return None
    if started:
        return f"{NOTHING_LABELLED}, and the requests of the start are open or were given up"
    if queue.dropped["over the budget"]:
        return f"the budget of {driver.config.budget:g} is spent"
    if candidates.known and not candidates.any():
        return "the pool has no unlabelled sample left"
    if not driver.query_strategies or (candidates.known and driver.config.max_active_learning_steps is not None):
        return None
    return "the query strategies asked for nothing"
