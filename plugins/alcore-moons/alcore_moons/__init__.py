"""The two-moons problem and a small multi-layer perceptron."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_moons.data import MoonsPool, moons
    from alcore_moons.learner import MLP, RegressionMLP, mlp

_HOME = {
    "MLP": "learner",
    "MoonsPool": "data",
    "RegressionMLP": "learner",
    "mlp": "learner",
    "moons": "data",
}
__all__ = ["MLP", "MoonsPool", "RegressionMLP", "mlp", "moons"]


@alcore.hookimpl
def alcore_data() -> dict[str, Any]:
    """Offer ``moons``."""
    return {"moons": "alcore_moons.data:moons"}


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``mlp``."""
    return {"mlp": "alcore_moons.learner:mlp"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
