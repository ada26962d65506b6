"""Gaussian processes as learners."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_gp.learner import GaussianProcess
    from alcore_gp.loop import GPTrainingLoop

_HOME = {"GPTrainingLoop": "loop", "GaussianProcess": "learner"}
__all__ = ["GPTrainingLoop", "GaussianProcess"]


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``gp``; it is named by a string, so that listing plugins imports no torch."""
    return {"gp": "alcore_gp.learner:GaussianProcess"}


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``gp``, which fits the learner of that name."""
    return {"gp": "alcore_gp.loop:GPTrainingLoop"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
