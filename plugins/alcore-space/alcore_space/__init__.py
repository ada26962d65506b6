"""Design spaces: variables with bounds and units, constraints, and candidates that are computed from their ids.

Importing this package imports neither torch nor numpy; its names are loaded when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_space.data import space
    from alcore_space.design_space import Space
    from alcore_space.pool import SpacePool
    from alcore_space.query import DesignQuery
    from alcore_space.refinement import RefinedQuery
    from alcore_space.variables import Category, Integer, Log, Real

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
__getattr__ = lazy_names(
    __name__,
    {
        "data": ["space"],
        "design_space": ["Space"],
        "pool": ["SpacePool"],
        "query": ["DesignQuery"],
        "refinement": ["RefinedQuery"],
        "variables": ["Category", "Integer", "Log", "Real"],
    },
)


@alcore.hookimpl
def alcore_data() -> Mapping[str, str]:
    """Offer ``--data space``."""
    return {"space": "alcore_space.data:space"}


@alcore.hookimpl
def alcore_query_strategies() -> Mapping[str, str]:
    """Offer ``design``, which asks for the start design of a space, and ``refined``, which looks around good points."""
    return {"design": "alcore_space.query:DesignQuery", "refined": "alcore_space.refinement:RefinedQuery"}
