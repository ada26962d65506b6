"""Log the steps of a run to MLflow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_mlflow.tracker import MLflowTracker

__all__ = ["MLflowTracker"]


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe mlflow``."""
    return {"mlflow": "alcore_mlflow.tracker:MLflowTracker"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.tracker"), name)
