"""What the metrology strategies of a run have measured, step by step."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from alcore.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from alcore.driver import Driver

_ERRORS = {"brier", "ece", "error", "loss", "mae", "mape", "mse", "nll", "perplexity", "rmse"}


class Figure(NamedTuple):
    """A measured value and the step in which it was measured."""

    step: int
    value: float


def lower_is_better(name: str) -> bool:
    """Tell whether the last word of a figure's name is that of an error: ``rmse``, ``val_loss``."""
    return re.split(r"[._\-\s]", name.lower())[-1] in _ERRORS


def figures(driver: Driver, name: str) -> list[Figure]:
    """Return a figure of each step that has measured it, oldest first.

    Parameters
    ----------
    driver
        Whose metrology strategies are asked.
    name
        A number in a metrology record, such as ``f1``, or with the strategy before it, ``f1_metrology.f1``. Of two
        strategies that have it the first one counts, and of two records of a step the last one.

    Raises
    ------
    UsageError
        When nothing is measured in this run, or something is and never this figure.
    """
    if driver.config.skip_metrology or not driver.metrology_strategies:
        raise UsageError(
            f"the run measures nothing, so {name!r} is never known; give it a metrology strategy that measures it, "
            "for instance --metrology f1."
        )
    known: dict[str, None] = {}
    for strategy in driver.metrology_strategies:
        own = driver.strategy_name(strategy)
        found: dict[int, float] = {}
        for step, record in _records(strategy.records):
            numeric = {str(key): float(value) for key, value in record.items() if _is_number(value)}
            known |= dict.fromkeys(numeric)
            for key in (name, name.removeprefix(f"{own}.")):
                if key in numeric:
                    found[step] = numeric[key]
        if found:
            return [Figure(step, value) for step, value in sorted(found.items())]
    if known:
        raise UsageError(f"no metrology strategy of this run measures {name!r}: {did_you_mean(name, known)}.")
    return []


def _records(records: list[Any]) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    """Yield records that are mappings with their steps; one that doesn't say its step has that of its place."""
    for place, record in enumerate(records):
        if isinstance(record, Mapping):
            step = record.get("step", place)
            yield step if isinstance(step, int) else place, record


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
