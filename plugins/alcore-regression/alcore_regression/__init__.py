"""Query strategies for regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_regression.emcm import bootstrap_committee, expected_model_change
    from alcore_regression.greedy import gsx, gsy, igs
    from alcore_regression.query import EMCMQuery, GSxQuery, GSyQuery, IGSQuery
    from alcore_regression.reduction import ALCQuery, MaxVarianceQuery
    from alcore_regression.variance import VarianceQuery, posterior_variance

__all__ = [
    "ALCQuery",
    "EMCMQuery",
    "GSxQuery",
    "GSyQuery",
    "IGSQuery",
    "MaxVarianceQuery",
    "VarianceQuery",
    "bootstrap_committee",
    "expected_model_change",
    "gsx",
    "gsy",
    "igs",
    "posterior_variance",
]
__getattr__ = lazy_names(
    __name__,
    {
        "emcm": ["bootstrap_committee", "expected_model_change"],
        "greedy": ["gsx", "gsy", "igs"],
        "query": ["EMCMQuery", "GSxQuery", "GSyQuery", "IGSQuery"],
        "reduction": ["ALCQuery", "MaxVarianceQuery"],
        "variance": ["VarianceQuery", "posterior_variance"],
    },
)


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer the query strategies; classes are named by strings, so that listing plugins imports no torch."""
    return {
        "gsx": "alcore_regression.query:GSxQuery",
        "gsy": "alcore_regression.query:GSyQuery",
        "igs": "alcore_regression.query:IGSQuery",
        "variance": "alcore_regression.variance:VarianceQuery",
        "emcm": "alcore_regression.query:EMCMQuery",
        "max-variance": "alcore_regression.reduction:MaxVarianceQuery",
        "alc": "alcore_regression.reduction:ALCQuery",
    }
