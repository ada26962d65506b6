"""Query strategies for regression."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_regression.emcm import bootstrap_committee, expected_model_change
    from alcore_regression.greedy import gsx, gsy, igs
    from alcore_regression.query import EMCMQuery, GSxQuery, GSyQuery, IGSQuery
    from alcore_regression.reduction import ALCQuery, MaxVarianceQuery
    from alcore_regression.variance import VarianceQuery, posterior_variance

_HOME = {
    "ALCQuery": "reduction",
    "EMCMQuery": "query",
    "GSxQuery": "query",
    "GSyQuery": "query",
    "IGSQuery": "query",
    "MaxVarianceQuery": "reduction",
    "VarianceQuery": "variance",
    "bootstrap_committee": "emcm",
    "expected_model_change": "emcm",
    "gsx": "greedy",
    "gsy": "greedy",
    "igs": "greedy",
    "posterior_variance": "variance",
}
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
