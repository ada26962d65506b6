"""Choose samples uniformly at random: the baseline that every other strategy has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_random.query import RandomQuery

__all__ = ["RandomQuery"]


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``random``; the class is named by a string, so that listing plugins imports no torch."""
    return {"random": "alcore_random.query:RandomQuery"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from alcore_random import query

        return getattr(query, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
