"""Measure classifiers, regressions and predicted fields after each round of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_metrics.classification import ClassificationMetrology
    from alcore_metrics.fields import FieldsMetrology
    from alcore_metrics.regression import RegressionMetrology
    from alcore_metrics.uncertainty import UncertaintyMetrology

__all__ = ["ClassificationMetrology", "FieldsMetrology", "RegressionMetrology", "UncertaintyMetrology"]
__getattr__ = lazy_names(
    __name__,
    {
        "classification": ["ClassificationMetrology"],
        "fields": ["FieldsMetrology"],
        "regression": ["RegressionMetrology"],
        "uncertainty": ["UncertaintyMetrology"],
    },
)


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
