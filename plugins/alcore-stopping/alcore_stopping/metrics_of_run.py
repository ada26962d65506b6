"""The values of a metric that the metrology strategies of a run measured, step by step."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from alcore.errors import UsageError, did_you_mean
from alcore.protocols import RunContext

_ERRORS = {"brier", "ece", "error", "l2", "loss", "mae", "mape", "mse", "nll", "perplexity", "rmse"}


class Measurement(NamedTuple):
    """The value of a metric, and the step in which it was measured."""

    step: int
    value: float


def lower_is_better(name: str) -> bool:
    """Return whether the last word of a metric's name is that of an error: ``rmse``, ``val_loss``."""
    return re.split(r"[._\-\s]", name.lower())[-1] in _ERRORS


def metric_of_run(context: RunContext, name: str) -> list[Measurement]:
    """Return the value of a metric in each step that measured it, oldest first.

    Parameters
    ----------
    context
        The run, with its metrology strategies.
    name
        A number in a metrology record, such as ``f1``, or with the name of the strategy, ``f1_metrology.f1``. Of two
        strategies that measure it the first is taken, and of two records of one step the last.

    Raises
    ------
    UsageError
        If the run measures nothing, or has records and none with this metric.
    """
    if not context.measures:
        raise UsageError(
            f"the run measures nothing, so {name!r} is never known; give it a metrology strategy that measures it, "
            "for instance --metrology f1."
        )
    names: dict[str, None] = {}
    for strategy in context.metrology_strategies:
        own = context.strategy_name(strategy)
        values: dict[int, float] = {}
        for step, record in _records(strategy.records):
            numeric = {str(key): float(value) for key, value in record.items() if _is_number(value)}
            names |= dict.fromkeys(numeric)
            for key in (name, name.removeprefix(f"{own}.")):
                if key in numeric:
                    values[step] = numeric[key]
        if values:
            return [Measurement(step, value) for step, value in sorted(values.items())]
    if names:
        raise UsageError(f"no metrology strategy of this run measures {name!r}: {did_you_mean(name, names)}.")
    return []


def _records(records: list[Any]) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """Yield records that are mappings, with their steps; for a record without ``step``, its position is its step."""
    for position, record in enumerate(records):
        if isinstance(record, Mapping):
            step = record.get("step", position)
            yield step if isinstance(step, int) else position, record


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
