"""Uncertainty sampling: ask for the samples a classifier is least sure about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore.inference.uncertainty import entropy, least_confidence, margin
    from alcore_uq.query import ClassifierUQQuery

__all__ = ["ClassifierUQQuery", "entropy", "least_confidence", "margin"]


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``uq``."""
    return {"uq": "alcore_uq.query:ClassifierUQQuery"}


def __getattr__(name: str) -> Any:
    if name == "ClassifierUQQuery":
        from alcore_uq import query

        return query.ClassifierUQQuery
    if name in __all__:
        from alcore.inference import uncertainty as measures

        return getattr(measures, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
