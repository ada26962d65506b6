"""Measure classifiers, regressions and predicted fields after each round of training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_metrics.classification import ClassificationMetrology
    from alcore_metrics.fields import FieldsMetrology
    from alcore_metrics.regression import RegressionMetrology
    from alcore_metrics.uncertainty import UncertaintyMetrology

_HOME = {
    "ClassificationMetrology": "classification",
    "FieldsMetrology": "fields",
    "RegressionMetrology": "regression",
    "UncertaintyMetrology": "uncertainty",
}
__all__ = ["ClassificationMetrology", "FieldsMetrology", "RegressionMetrology", "UncertaintyMetrology"]


@alcore.hookimpl
def alcore_metrology_strategies() -> dict[str, Any]:
    """Offer the metrology strategies; ``rmse`` is another name of ``regression``."""
    return {
        "classification": "alcore_metrics.classification:ClassificationMetrology",
        "fields": "alcore_metrics.fields:FieldsMetrology",
        "regression": "alcore_metrics.regression:RegressionMetrology",
        "rmse": "alcore_metrics.regression:RegressionMetrology",
        "uncertainty": "alcore_metrics.uncertainty:UncertaintyMetrology",
    }


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
