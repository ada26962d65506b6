"""Retention: which checkpoints of a run are kept."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from alcore.errors import UsageError, did_you_mean

_RULES = ("last", "best", "every")
_EXAMPLE = "for instance last=3,best=f1,every=10, or all"


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept, beside the first and the last one.

    Parameters
    ----------
    last
        Keep so many of the newest, those inside training included.
    every
        Keep the ends of steps number `every`, 2 `every`, 3 `every` and so on, where steps count from one.
    best
        Keep the end of the step with the best value of this metric: a figure of a metrology record (``f1``, or
        ``f1_metrology.f1``) or a loss of the training (``loss``).
    lowest
        Whether the lowest value is the best; the highest otherwise. Of equal ones the first is the best.
    """

    last: int = 1
    every: int | None = None
    best: str | None = None
    lowest: bool = False


def parse_retention(text: str | None) -> Retention | None:
    """Read a retention such as ``last=3,best=loss:min,every=10``; None and ``all`` keep everything.

    Raises
    ------
    UsageError
        If it can't be read, naming the part that is wrong.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise UsageError(f"keep is {text!r}; it must be a text, {_EXAMPLE}.")
    rules = [rule.strip() for rule in text.split(",")]
    if rules == ["all"]:
        return None
    settings: dict[str, Any] = {}
    for rule in rules:
        name, equals, value = (part.strip() for part in rule.partition("="))
        if name == "all" and not equals:
            raise UsageError(f"keep {text!r}: 'all' keeps every checkpoint, so it stands alone.")
        if name not in _RULES:
            raise UsageError(f"keep {text!r}: {rule!r} is not a rule: {did_you_mean(name, _RULES)}; {_EXAMPLE}.")
        if name in settings:
            raise UsageError(f"keep {text!r}: {name!r} is given twice; once is enough.")
        settings |= _metric(text, value) if name == "best" else {name: _count(text, name, value)}
    return Retention(**settings)


def _count(text: str, name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value)):
        raise UsageError(f"keep {text!r}: {name} takes a whole number of at least 1, for instance {name}=3.")
    return int(value)


def _metric(text: str, value: str) -> dict[str, Any]:
    metric, colon, which = value.rpartition(":") if ":" in value else (value, "", "max")
    if not metric:
        raise UsageError(f"keep {text!r}: best takes the name of a metric, for instance best=f1 or best=loss:min.")
    if which not in ("max", "min"):
        raise UsageError(f"keep {text!r}: {which!r} follows {metric}{colon}; {did_you_mean(which, ['max', 'min'])}.")
    return {"best": metric, "lowest": which == "min"}


def to_drop(
    rows: Sequence[Mapping[str, Any]], keep: Retention, figures: Mapping[int, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Return the checkpoints that a retention does not keep.

    Parameters
    ----------
    rows
        All checkpoints, oldest first: ``file``, ``step`` and ``phase``.
    keep
        What is wanted.
    figures
        What was measured at the ends of steps that have a checkpoint, by step and name.

    Returns
    -------
    files : list of str
        Oldest first. Never the first nor the last; none at all if the best one is wanted and no end of a step has the
        metric.
    warnings : list of str
        That the metric was not measured, if so.
    """
    ends = [row for row in rows if row["phase"] == "labeling"]
    kept = {row["file"] for row in [*rows[:1], *rows[-keep.last :]]}
    if keep.every is not None:
        kept |= {row["file"] for row in ends if (row["step"] + 1) % keep.every == 0}
    if keep.best is not None:
        scores = {
            step: step_figures[keep.best]
            for step, step_figures in figures.items()
            if _is_finite(step_figures.get(keep.best))
        }
        scored = [row for row in ends if row["step"] in scores]
        if not scored:
            return [], [_not_measured(keep.best, figures)] if figures else []
        sign = -1 if keep.lowest else 1
        kept.add(max(scored, key=lambda row: sign * float(scores[row["step"]]))["file"])
    return [row["file"] for row in rows if row["file"] not in kept], []


def _not_measured(metric: str, figures: Mapping[int, Mapping[str, Any]]) -> str:
    recorded = dict.fromkeys(
        name for step_figures in figures.values() for name, value in step_figures.items() if _is_finite(value)
    )
    return (
        f"no checkpoint is deleted, since no step has recorded {metric!r}, which says what the best one is: "
        f"{did_you_mean(metric, recorded)}."
    )


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
