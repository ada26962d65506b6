"""Choose samples that differ from each other and from the labeled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

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
__getattr__ = lazy_names(
    __name__,
    {
        "badge": ["BADGEQuery"],
        "class_balanced": ["ClassBalancedQuery"],
        "cluster_margin": ["ClusterMarginQuery"],
        "density": ["InformationDensityQuery"],
        "kcenter": ["KCenterQuery"],
        "probcover": ["ProbCoverQuery"],
        "stratified": ["StratifiedQuery"],
        "stratified_start": ["StratifiedStart"],
        "typiclust": ["TypiClustQuery"],
    },
)


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer the query strategies; classes are named by strings, so that listing plugins imports no torch."""
    return {
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
