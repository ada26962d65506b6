"""Design spaces: variables with bounds and units, constraints, and candidates that are computed from their ids.

Importing this package imports neither torch nor numpy; its names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_space.data import space
    from alcore_space.design_space import Space
    from alcore_space.pool import SpacePool
    from alcore_space.query import DesignQuery
    from alcore_space.refinement import RefinedQuery
    from alcore_space.variables import Category, Integer, Log, Real

_HOME = {
    "Category": "variables",
    "DesignQuery": "query",
    "Integer": "variables",
    "Log": "variables",
    "Real": "variables",
    "RefinedQuery": "refinement",
    "Space": "design_space",
    "SpacePool": "pool",
    "space": "data",
}
__all__ = [
    "Category",
    "DesignQuery",
    "Integer",
    "Log",
    "Real",
    "RefinedQuery",
    "Space",
    "SpacePool",
    "alcore_data",
    "alcore_query_strategies",
    "space",
]


@alcore.hookimpl
def alcore_data() -> Mapping[str, str]:
    """Offer ``--data space``."""
    return {"space": "alcore_space.data:space"}


@alcore.hookimpl
def alcore_query_strategies() -> Mapping[str, str]:
    """Offer ``design``, which asks for the start design of a space, and ``refined``, which looks around good points."""
    return {"design": "alcore_space.query:DesignQuery", "refined": "alcore_space.refinement:RefinedQuery"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alcore_space' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"alcore_space.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
