"""Why a run ends, apart from stop criteria and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from alcore.pools.candidates import Candidates
from alcore.store.outcomes import KEEPS_FAILING, NOTHING_LABELED, WAITING, WAITS


def step_limit(max_steps: int | None, done: int) -> str | None:
    """Return the reason to end where the number of finished steps has reached the limit, else None."""
    return f"all {max_steps} steps are done" if max_steps is not None and done >= max_steps else None


def is_step_limit(reason: str | None) -> bool:
    """Tell whether a run ended by `step_limit`, not by a stop criterion."""
    return reason is not None and re.fullmatch(r"all \d+ steps are done", reason) is not None


def keeps_failing(failures: str | None, most: float) -> str | None:
    """Return the reason to end where labels keep failing, else None.

    Parameters
    ----------
    failures
        How many of how many answers were failures, in words; None where they were not too many.
    most
        The share above which they are.
    """
    if failures is None:
        return None
    return f"{KEEPS_FAILING}: {failures} were failures, more than max_failure_rate={most:g} allows"


def waits(why: str | None) -> str | None:
    """Return the reason to end where the label strategy waits, else None.

    Parameters
    ----------
    why
        What it waits for; None where it doesn't.
    """
    return None if why is None else f"{WAITS}: {why}"


def nothing_to_label(
    *,
    requested: bool,
    dropped: Mapping[str, int],
    candidates: Candidates,
    cold_start: bool,
    settled: bool,
    waiting: bool,
    has_query_strategies: bool,
    max_steps: int | None,
    budget: float | None,
) -> str | None:
    """Return the reason to end after a step whose query phase asked for nothing, else None.

    Parameters
    ----------
    requested
        Whether the query phase asked for anything.
    dropped
        How many requests it dropped, by reason.
    candidates
        What may be asked for.
    cold_start
        Whether nothing was labeled when the step began, so that the start strategy chose.
    settled
        Whether any request was labeled or given up in this step.
    waiting
        Whether any request is open.
    has_query_strategies, max_steps, budget
        What the run is configured with.
    """
    if requested or (cold_start and settled):  # in the latter case the next step has something to train on
        return None
    if cold_start:
        return WAITING if waiting else f"{NOTHING_LABELED}, and the requests of the start were given up"
    if dropped.get("over the budget"):
        return f"the budget of {budget:g} is spent"
    if candidates.known and not candidates.any():
        return "the pool has no unlabelled sample left"
    if not has_query_strategies or (candidates.known and max_steps is not None):
        return None
    return "the query strategies asked for nothing"
