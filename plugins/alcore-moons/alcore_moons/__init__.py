"""The two-moons problem and a small multi-layer perceptron."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_moons.data import MoonsPool, moons
    from alcore_moons.learner import MLP, RegressionMLP, mlp

__all__ = ["MLP", "MoonsPool", "RegressionMLP", "mlp", "moons"]
__getattr__ = lazy_names(__name__, {"data": ["MoonsPool", "moons"], "learner": ["MLP", "RegressionMLP", "mlp"]})


@alcore.hookimpl
def alcore_data() -> dict[str, Any]:
    """Offer ``moons``."""
    return {"moons": "alcore_moons.data:moons"}


@alcore.hookimpl
def alcore_learners() -> dict[str, Any]:
    """Offer ``mlp``."""
    return {"mlp": "alcore_moons.learner:mlp"}
