"""Why a run ends, apart from stop criteria and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alcore.pools.candidates import Candidates
from alcore.protocols import EndKind, EndReason


def step_limit(max_steps: int | None, done: int) -> EndReason | None:
    """Return the reason to end where the number of finished steps has reached the limit, else None."""
    if max_steps is None or done < max_steps:
        return None
    return EndReason(EndKind.STEPS, f"all {max_steps} steps are done")


def keeps_failing(failures: str | None, most: float) -> EndReason | None:
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
    return EndReason(
        EndKind.LABELS_FAIL,
        f"labels keep failing: {failures} were failures, more than max_failure_rate={most:g} allows",
    )


def all_refused(record: Mapping[str, Any], reasons: Callable[[], list[dict[str, Any]]]) -> EndReason | None:
    """Return the reason to end where all answers of a step were refused, else None.

    Parameters
    ----------
    record
        What the step has recorded: ``requested``, ``labeled`` and ``refused``.
    reasons
        Called for why its answers were refused, the most frequent one first: ``reason`` and ``count``.
    """
    if record["labeled"] or not record["requested"] or record["refused"] < record["requested"]:
        return None
    refusals = reasons()
    why = f": {refusals[0]['reason']}" if refusals else ""
    return EndReason(EndKind.LABELS_REFUSED, f"all {record['refused']} answers of a step were refused{why}")


def waits(why: str | None) -> EndReason | None:
    """Return the reason to end where the label strategy waits, else None.

    Parameters
    ----------
    why
        What it waits for; None where it doesn't.
    """
    return None if why is None else EndReason(EndKind.WAITING, f"waiting for labels: {why}")


def nothing_to_label(
    *,
    requested: bool,
    over_budget: bool,
    candidates: Candidates,
    cold_start: bool,
    settled: bool,
    waiting: bool,
    has_query_strategies: bool,
    max_steps: int | None,
    budget: float | None,
) -> EndReason | None:
    """Return the reason to end after a step whose query phase asked for nothing, else None.

    Parameters
    ----------
    requested
        Whether the query phase asked for anything.
    over_budget
        Whether it dropped a request that the budget doesn't allow.
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
        kind, rest = (EndKind.START_WAITING, "are open") if waiting else (EndKind.START_FAILED, "were given up")
        return EndReason(kind, f"nothing is labeled yet, and the requests of the start {rest}")
    if over_budget:
        return EndReason(EndKind.BUDGET, f"the budget of {budget:g} is spent")
    if candidates.known and not candidates.any():
        return EndReason(EndKind.POOL, "the pool has no unlabeled sample left")
    if not has_query_strategies or (candidates.known and max_steps is not None):
        return None
    return EndReason(EndKind.QUERY, "the query strategies asked for nothing")
