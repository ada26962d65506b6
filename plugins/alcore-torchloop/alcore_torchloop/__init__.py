"""The default training loop, and the static capture of training and evaluation steps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_torchloop.capture import StaticCaptureEvaluateNoGrad, StaticCaptureTraining
    from alcore_torchloop.loop import DefaultTrainingLoop

_HOME = {
    "DefaultTrainingLoop": "loop",
    "StaticCaptureEvaluateNoGrad": "capture",
    "StaticCaptureTraining": "capture",
}
__all__ = ["DefaultTrainingLoop", "StaticCaptureEvaluateNoGrad", "StaticCaptureTraining"]


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``default``, which the Driver uses where no other loop is named."""
    return {"default": "alcore_torchloop.loop:DefaultTrainingLoop"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
