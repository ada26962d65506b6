"""Uncertainty sampling: ask for the samples about which a classifier is least certain."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_uq.query import ClassifierUQQuery

_HOME = {"ClassifierUQQuery": "query"}
__all__ = ["ClassifierUQQuery"]


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``uq``."""
    return {"uq": "alcore_uq.query:ClassifierUQQuery"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
