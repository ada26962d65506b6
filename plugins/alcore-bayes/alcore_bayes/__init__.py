"""Query strategies for learners with posterior samples, and ensembles as such learners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_bayes.batchbald import batch_bald
    from alcore_bayes.batchquery import BatchBALDQuery
    from alcore_bayes.deep_ensemble import DeepEnsemble
    from alcore_bayes.ensembles import Ensemble, ensemble
    from alcore_bayes.noise import perturb
    from alcore_bayes.query import BALDQuery, CommitteeQuery, MeanStdQuery, PowerBALDQuery, VariationRatioQuery

__all__ = [
    "BALDQuery",
    "BatchBALDQuery",
    "CommitteeQuery",
    "DeepEnsemble",
    "Ensemble",
    "MeanStdQuery",
    "PowerBALDQuery",
    "VariationRatioQuery",
    "batch_bald",
    "ensemble",
    "perturb",
]
__getattr__ = lazy_names(
    __name__,
    {
        "batchbald": ["batch_bald"],
        "batchquery": ["BatchBALDQuery"],
        "deep_ensemble": ["DeepEnsemble"],
        "ensembles": ["Ensemble", "ensemble"],
        "noise": ["perturb"],
        "query": ["BALDQuery", "CommitteeQuery", "MeanStdQuery", "PowerBALDQuery", "VariationRatioQuery"],
    },
)


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer the strategies; the classes are named by strings, so that listing plugins imports no torch."""
    return {
        "bald": "alcore_bayes.query:BALDQuery",
        "batchbald": "alcore_bayes.batchquery:BatchBALDQuery",
        "mean-std": "alcore_bayes.query:MeanStdQuery",
        "powerbald": "alcore_bayes.query:PowerBALDQuery",
        "qbc": "alcore_bayes.query:CommitteeQuery",
        "variation-ratio": "alcore_bayes.query:VariationRatioQuery",
    }


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``ensemble`` and ``deep-ensemble``."""
    return {"deep-ensemble": "alcore_bayes.deep_ensemble:DeepEnsemble", "ensemble": "alcore_bayes.ensembles:ensemble"}
