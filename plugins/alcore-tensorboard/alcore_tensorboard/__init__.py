"""Write the steps of a run for TensorBoard."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_tensorboard.tracker import TensorBoardTracker

__all__ = ["TensorBoardTracker"]


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe tensorboard``."""
    return {"tensorboard": "alcore_tensorboard.tracker:TensorBoardTracker"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.tracker"), name)
