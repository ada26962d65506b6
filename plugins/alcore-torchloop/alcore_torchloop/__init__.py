"""The default training loop, and the static capture of training and evaluation steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_torchloop.capture import StaticCaptureEvaluateNoGrad, StaticCaptureTraining
    from alcore_torchloop.loop import DefaultTrainingLoop

__all__ = ["DefaultTrainingLoop", "StaticCaptureEvaluateNoGrad", "StaticCaptureTraining"]
__getattr__ = lazy_names(
    __name__, {"capture": ["StaticCaptureEvaluateNoGrad", "StaticCaptureTraining"], "loop": ["DefaultTrainingLoop"]}
)


@alcore.hookimpl
def alcore_training_loops() -> dict[str, Any]:
    """Offer ``default``, which the Driver uses where no other loop is named."""
    return {"default": "alcore_torchloop.loop:DefaultTrainingLoop"}
