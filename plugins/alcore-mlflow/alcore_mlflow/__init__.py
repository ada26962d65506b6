"""Log the steps of a run to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_mlflow.tracker import MLflowTracker

__all__ = ["MLflowTracker"]
__getattr__ = lazy_names(__name__, {"tracker": ["MLflowTracker"]})


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe mlflow``."""
    return {"mlflow": "alcore_mlflow.tracker:MLflowTracker"}
