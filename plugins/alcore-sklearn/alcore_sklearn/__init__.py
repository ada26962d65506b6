"""Estimators of scikit-learn: as a learner with a training loop that fits it, and as what a query strategy asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_sklearn.estimators import available
    from alcore_sklearn.learner import SklearnLearner
    from alcore_sklearn.loop import SklearnTrainingLoop
    from alcore_sklearn.query import SklearnUncertaintyQuery

__all__ = ["SklearnLearner", "SklearnTrainingLoop", "SklearnUncertaintyQuery", "available"]

_HOMES = {
    "SklearnLearner": "learner",
    "SklearnTrainingLoop": "loop",
    "SklearnUncertaintyQuery": "query",
    "available": "estimators",
}


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
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"alcore_sklearn.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
