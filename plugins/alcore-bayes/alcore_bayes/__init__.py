"""Query strategies for learners with posterior samples, and two ways to get such samples: MC dropout and ensembles."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_bayes.batchbald import batch_bald
    from alcore_bayes.batchquery import BatchBALDQuery
    from alcore.inference.dropout import DropoutSampler, mc_dropout
    from alcore_bayes.ensembles import Ensemble, ensemble
    from alcore_bayes.measures import (
        bald,
        consensus_kl,
        expected_entropy,
        mean_std,
        predictive_entropy,
        variation_ratio,
        vote_entropy,
    )
    from alcore_bayes.noise import perturb
    from alcore_bayes.query import BALDQuery, CommitteeQuery, MeanStdQuery, PowerBALDQuery, VariationRatioQuery

_HOME = {
    "batchbald": ["batch_bald"],
    "batchquery": ["BatchBALDQuery"],
    "dropout": ["DropoutSampler", "mc_dropout"],
    "ensembles": ["Ensemble", "ensemble"],
    "measures": [
        "bald",
        "consensus_kl",
        "expected_entropy",
        "mean_std",
        "predictive_entropy",
        "variation_ratio",
        "vote_entropy",
    ],
    "noise": ["perturb"],
    "query": ["BALDQuery", "CommitteeQuery", "MeanStdQuery", "PowerBALDQuery", "VariationRatioQuery"],
}
__all__ = [
    "BALDQuery",
    "BatchBALDQuery",
    "CommitteeQuery",
    "DropoutSampler",
    "Ensemble",
    "MeanStdQuery",
    "PowerBALDQuery",
    "VariationRatioQuery",
    "bald",
    "batch_bald",
    "consensus_kl",
    "ensemble",
    "expected_entropy",
    "mc_dropout",
    "mean_std",
    "perturb",
    "predictive_entropy",
    "variation_ratio",
    "vote_entropy",
]


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
    """Offer ``ensemble``."""
    return {"ensemble": "alcore_bayes.ensembles:ensemble"}


def __getattr__(name: str) -> Any:
    for home, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
