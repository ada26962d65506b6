"""The strategies of a run and their names."""

from __future__ import annotations

from typing import Any

from alcore.config import StrategiesConfig
from alcore.errors import UsageError
from alcore.names import snake_case, unique_names
from alcore.training.extra_arguments import Taker


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
        Each object once, also one of several kinds; a name is the class in snake case, a second instance has ``-2``
        after it.
    """

    def __init__(self, config: StrategiesConfig) -> None:
        self.query = list(config.query_strategies)
        self.metrology = list(config.metrology_strategies or ())
        self.start, self.label = config.start_strategy, config.label_strategy
        given = [*self.query, *self.metrology, *(part for part in (self.label, self.start) if part is not None)]
        parts: list[Any] = list({id(part): part for part in given}.values())
        names = unique_names(snake_case(type(part).__name__) for part in parts)
        self.by_name: dict[str, Any] = dict(zip(names, parts, strict=True))

    def takers(self) -> list[Taker]:
        """Return the methods that are offered the arguments of a run."""
        asking = {id(part): part for part in [*self.query, self.start] if part is not None}
        takers = [Taker(f"sample() of {self.name_of(part)}", part.sample, 1) for part in asking.values()]
        if self.label is not None:
            takers.append(Taker(f"label() of {self.name_of(self.label)}", self.label.label, 2))
        return takers + [Taker(f"compute() of {self.name_of(part)}", part.compute, 0) for part in self.metrology]

    def name_of(self, strategy: Any) -> str:
        """Return the name of a strategy."""
        for name, part in self.by_name.items():
            if part is strategy:
                return name
        raise UsageError(f"{type(strategy).__name__} is not a strategy of this driver.")
