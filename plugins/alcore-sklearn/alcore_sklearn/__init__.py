"""Estimators of scikit-learn: a learner, and a query strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_sklearn.estimators import available
    from alcore_sklearn.learner import SklearnLearner
    from alcore_sklearn.query import SklearnUncertaintyQuery

__all__ = ["SklearnLearner", "SklearnUncertaintyQuery", "available"]
__getattr__ = lazy_names(
    __name__,
    {
        "estimators": ["available"],
        "learner": ["SklearnLearner"],
        "query": ["SklearnUncertaintyQuery"],
    },
)


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``sklearn``."""
    return {"sklearn": "alcore_sklearn.learner:SklearnLearner"}


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``sklearn``, as runs of earlier versions name the loop; the default one fits the learner too."""
    return {"sklearn": "alcore.training:FittingLoop"}


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``sklearn-uq``."""
    return {"sklearn-uq": "alcore_sklearn.query:SklearnUncertaintyQuery"}
