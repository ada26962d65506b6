"""Measure precision, recall and F1 of a classifier after each round of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_f1.metrology import F1Metrology

__all__ = ["F1Metrology"]


@alcore.hookimpl
def alcore_metrology_strategies() -> dict[str, Any]:
    """Offer ``f1``."""
    return {"f1": "alcore_f1.metrology:F1Metrology"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from alcore_f1 import metrology

        return getattr(metrology, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
