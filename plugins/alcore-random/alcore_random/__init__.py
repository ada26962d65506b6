"""Choose samples uniformly at random: the baseline that every other strategy has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_random.query import RandomQuery

__all__ = ["RandomQuery"]
__getattr__ = lazy_names(__name__, {"query": ["RandomQuery"]})


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``random``; the class is named by a string, so that listing plugins imports no torch."""
    return {"random": "alcore_random.query:RandomQuery"}
