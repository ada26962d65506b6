"""Measure precision, recall and F1 of a classifier after each round of training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_f1.metrology import F1Metrology

_HOME = {
    "F1Metrology": "metrology",
}
__all__ = ["F1Metrology"]


@alcore.hookimpl
def alcore_metrology_strategies() -> dict[str, Any]:
    """Offer ``f1``."""
    return {"f1": "alcore_f1.metrology:F1Metrology"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
