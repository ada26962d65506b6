"""Write the steps of a run for TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_tensorboard.tracker import TensorBoardTracker

__all__ = ["TensorBoardTracker"]
__getattr__ = lazy_names(__name__, {"tracker": ["TensorBoardTracker"]})


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe tensorboard``."""
    return {"tensorboard": "alcore_tensorboard.tracker:TensorBoardTracker"}
