"""The strategies of a run and their names."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from helpers.toys import Everything

from alcore.config import StrategiesConfig
from alcore.driver.strategy_set import StrategySet
from alcore.errors import UsageError


class Named(Everything):
    """A strategy of any kind."""


class Other(Named):
    """Another one."""


def strategies(**parts: Any) -> StrategySet:
    given: dict[str, Any] = {"query_strategies": [], "queue_cls": queue.Queue, **parts}
    return StrategySet(StrategiesConfig(**given))


def test_names_are_unique_and_in_a_fixed_order() -> None:
    parts = [Named() for _ in range(5)]
    roles = strategies(
        query_strategies=parts[:2], metrology_strategies=parts[2:3], label_strategy=parts[3], start_strategy=parts[4]
    )
    assert roles.by_name == dict(zip(["named", "named-2", "named-3", "named-4", "named-5"], parts, strict=True))
    assert [roles.name_of(part) for part in parts] == list(roles.by_name)


def test_one_object_of_several_kinds_has_one_name() -> None:
    both, every = Named(), Named()
    roles = strategies(
        query_strategies=[both, every], metrology_strategies=[every], label_strategy=every, start_strategy=both
    )
    assert roles.by_name == {"named": both, "named-2": every}
    assert (roles.start, roles.query, roles.metrology, roles.label) == (both, [both, every], [every], every)


def test_lists_are_copies_of_those_of_the_config() -> None:
    given = [Named()]
    roles = strategies(query_strategies=given, metrology_strategies=given)
    roles.query.clear()
    roles.metrology.clear()
    assert len(given) == 1


def test_missing_kinds_are_empty() -> None:
    roles = strategies()
    assert (roles.query, roles.metrology, roles.start, roles.label, roles.by_name) == ([], [], None, None, {})


def test_name_of_a_stranger_is_refused_even_if_it_is_equal() -> None:
    with pytest.raises(UsageError, match="Other is not a strategy of this driver"):
        strategies(query_strategies=[Named()]).name_of(Other())
