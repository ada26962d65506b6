"""Uncertainty sampling: ask for the samples about which a classifier is least certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_uq.query import ClassifierUQQuery

__all__ = ["ClassifierUQQuery"]
__getattr__ = lazy_names(__name__, {"query": ["ClassifierUQQuery"]})


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``uq``."""
    return {"uq": "alcore_uq.query:ClassifierUQQuery"}
