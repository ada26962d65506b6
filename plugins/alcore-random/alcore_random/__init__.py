"""Choose samples uniformly at random: the baseline that every other strategy has to beat."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_random.query import RandomQuery

_HOME = {
    "RandomQuery": "query",
}
__all__ = ["RandomQuery"]


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``random``; the class is named by a string, so that listing plugins imports no torch."""
    return {"random": "alcore_random.query:RandomQuery"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
