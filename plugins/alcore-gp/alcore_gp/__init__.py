"""Gaussian processes as learners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_gp.learner import GaussianProcess
    from alcore_gp.loop import GPTrainingLoop

__all__ = ["GPTrainingLoop", "GaussianProcess"]
__getattr__ = lazy_names(__name__, {"learner": ["GaussianProcess"], "loop": ["GPTrainingLoop"]})


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``gp``; it is named by a string, so that listing plugins imports no torch."""
    return {"gp": "alcore_gp.learner:GaussianProcess"}


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``gp``, which fits the learner of that name."""
    return {"gp": "alcore_gp.loop:GPTrainingLoop"}
