"""The strategies of a run and their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alcore.config import StrategiesConfig
from alcore.errors import UsageError, raised_by
from alcore.names import snake_case, unique_names


class StrategySet:
    """The strategies of a run, by kind and by name.

    Parameters
    ----------
    config
        What the user gave.

    Attributes
    ----------
    query, metrology : list
        In their order.
    start, label : object or None
        The strategy of the first selection, and the one that labels.
    by_name : dict
        All of them; a name is the class in snake case, a second instance has ``-2`` after it.
    """

    def __init__(self, config: StrategiesConfig) -> None:
        self.query = list(config.query_strategies)
        self.metrology = list(config.metrology_strategies or ())
        self.start, self.label = config.start_strategy, config.label_strategy
        parts: list[Any] = [*self.query, *self.metrology]
        parts += [one for one in (self.label, self.start) if one is not None]
        names = unique_names(snake_case(type(part).__name__) for part in parts)
        self.by_name: dict[str, Any] = dict(zip(names, parts, strict=True))

    def name_of(self, strategy: Any) -> str:
        """Return the name of a strategy."""
        for name, part in self.by_name.items():
            if part is strategy:
                return name
        raise UsageError(f"{type(strategy).__name__} is not a strategy of this driver.")


def expected_costs(label_strategy: Any, pool: Any) -> Callable[[Any], float | None]:
    """Return a function that gives what the label of an item is expected to cost, or None where nobody says.

    The label strategy's ``cost(item)`` says it, else for a sample id the pool's ``cost(sample)``.
    """
    own = callable(getattr(label_strategy, "cost", None))
    owner = label_strategy if own else pool
    found = getattr(owner, "cost", None)
    if not callable(found):
        return lambda _item: None
    named = raised_by(f"cost() of {type(owner).__name__}")

    def cost(item: Any) -> float | None:
        if not own and not isinstance(item, int):
            return None
        with named:
            said = found(item)
            return None if said is None else float(said)

    return cost
