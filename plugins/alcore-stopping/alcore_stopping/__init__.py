"""Stop criteria: end a run when more labels would not be worth their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_stopping.budget import Budget
    from alcore_stopping.confidence import Confident
    from alcore_stopping.metric import MetricReached, Plateau
    from alcore_stopping.stability import StabilizingPredictions, cohen_kappa

__all__ = ["Budget", "Confident", "MetricReached", "Plateau", "StabilizingPredictions", "cohen_kappa"]
__getattr__ = lazy_names(
    __name__,
    {
        "budget": ["Budget"],
        "confidence": ["Confident"],
        "metric": ["MetricReached", "Plateau"],
        "stability": ["StabilizingPredictions", "cohen_kappa"],
    },
)


@alcore.hookimpl
def alcore_stop_criteria() -> dict[str, Any]:
    """Offer the stop criteria; classes are named by strings, so that listing plugins imports no torch."""
    return {
        "metric": "alcore_stopping.metric:MetricReached",
        "plateau": "alcore_stopping.metric:Plateau",
        "confident": "alcore_stopping.confidence:Confident",
        "stabilizing-predictions": "alcore_stopping.stability:StabilizingPredictions",
        "budget": "alcore_stopping.budget:Budget",
    }
