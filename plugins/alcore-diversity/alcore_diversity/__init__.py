"""Choose samples that differ from each other and from what is labeled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_diversity.badge import BADGEQuery
    from alcore_diversity.class_balanced import ClassBalancedQuery
    from alcore_diversity.cluster_margin import ClusterMarginQuery
    from alcore_diversity.density import InformationDensityQuery
    from alcore_diversity.kcenter import KCenterQuery
    from alcore_diversity.probcover import ProbCoverQuery
    from alcore_diversity.stratified import StratifiedQuery
    from alcore_diversity.stratified_start import StratifiedStart
    from alcore_diversity.typiclust import TypiClustQuery

__all__ = [
    "BADGEQuery",
    "ClassBalancedQuery",
    "ClusterMarginQuery",
    "InformationDensityQuery",
    "KCenterQuery",
    "ProbCoverQuery",
    "StratifiedQuery",
    "StratifiedStart",
    "TypiClustQuery",
]

_STRATEGIES = {
    "kcenter": "alcore_diversity.kcenter:KCenterQuery",
    "badge": "alcore_diversity.badge:BADGEQuery",
    "typiclust": "alcore_diversity.typiclust:TypiClustQuery",
    "probcover": "alcore_diversity.probcover:ProbCoverQuery",
    "cluster-margin": "alcore_diversity.cluster_margin:ClusterMarginQuery",
    "density": "alcore_diversity.density:InformationDensityQuery",
    "class-balanced": "alcore_diversity.class_balanced:ClassBalancedQuery",
    "stratified": "alcore_diversity.stratified:StratifiedQuery",
    "stratified-start": "alcore_diversity.stratified_start:StratifiedStart",
}


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer the strategies; classes are named by strings, so that listing plugins imports no torch."""
    return dict(_STRATEGIES)


def __getattr__(name: str) -> Any:
    for path in _STRATEGIES.values():
        module, _, found = path.partition(":")
        if name == found:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
