"""Measure precision, recall and F1 of a classifier after each round of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_f1.metrology import F1Metrology

__all__ = ["F1Metrology"]
__getattr__ = lazy_names(__name__, {"metrology": ["F1Metrology"]})


@alcore.hookimpl
def alcore_metrology_strategies() -> dict[str, Any]:
    """Offer ``f1``."""
    return {"f1": "alcore_f1.metrology:F1Metrology"}
