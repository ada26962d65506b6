"""What a run has come to, by its status and by the reason that it ended for."""

from __future__ import annotations

KEEPS_FAILING = "labels keep failing"
"""How the reason begins where too many answers were failures; the user may resume the run once the cause is fixed."""
NOTHING_LABELED = "nothing is labelled yet"
"""How the reason begins where a cold start got no labels; answers that arrive later let the run go on."""
WAITING = f"{NOTHING_LABELED}, and the requests of the start are open"
"""The reason where a cold start waits for its labels."""
WAITS = "waiting for labels"
"""How the reason begins where a label strategy waits for answers that come from elsewhere."""


def is_keeps_failing(reason: str | None) -> bool:
    """Tell whether a run ended since its labels keep failing."""
    return reason is not None and reason.startswith(KEEPS_FAILING)


def is_waiting(reason: str | None) -> bool:
    """Tell whether a run ended since it can't go on before labels arrive."""
    return reason is not None and (reason == WAITING or reason.startswith(WAITS))


def is_failure(reason: str | None) -> bool:
    """Tell whether a run that ended for this reason has not done what it was started for."""
    return is_keeps_failing(reason) or (
        reason is not None and reason.startswith(NOTHING_LABELED) and not is_waiting(reason)
    )


def untrained(labels: int) -> str:
    """Return in words that so many labels came after the last training; empty where there are none."""
    if not labels:
        return ""
    return (
        f"{labels} label{'' if labels == 1 else 's'} came after the last training, so the learner does not know "
        f"{'it' if labels == 1 else 'them'}; with final_training, a run whose steps are done trains once more"
    )


def outcome(status: str, reason: str | None) -> str:
    """Return what a run has come to.

    Parameters
    ----------
    status, reason
        As `Summary` has them.

    Returns
    -------
    str
        The status, but where it is ``done``: ``failed`` where the run has not done what it was started for, since its
        labels keep failing, and ``waiting`` where it waits for its first ones.
    """
    if status != "done":
        return status
    return "failed" if is_failure(reason) else "waiting" if is_waiting(reason) else status
