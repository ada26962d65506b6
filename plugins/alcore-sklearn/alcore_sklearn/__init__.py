"""Estimators of scikit-learn: a learner, a training loop that fits it, and a query strategy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_sklearn.estimators import available
    from alcore_sklearn.learner import SklearnLearner
    from alcore_sklearn.loop import SklearnTrainingLoop
    from alcore_sklearn.query import SklearnUncertaintyQuery

_HOME = {
    "SklearnLearner": "learner",
    "SklearnTrainingLoop": "loop",
    "SklearnUncertaintyQuery": "query",
    "available": "estimators",
}
__all__ = ["SklearnLearner", "SklearnTrainingLoop", "SklearnUncertaintyQuery", "available"]


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``sklearn``."""
    return {"sklearn": "alcore_sklearn.learner:SklearnLearner"}


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``sklearn``."""
    return {"sklearn": "alcore_sklearn.loop:SklearnTrainingLoop"}


@alcore.hookimpl
def alcore_query_strategies() -> dict[str, Any]:
    """Offer ``sklearn-uq``."""
    return {"sklearn-uq": "alcore_sklearn.query:SklearnUncertaintyQuery"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
