"""Mixed precision: steps that compute in half of it, and the scaler of their losses."""

from __future__ import annotations

from typing import Any

import torch

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(step: Any, amp: str, device: torch.device | None) -> Any:
    """Return a step that computes in mixed precision, unless `amp` is ``"off"``.

    Parameters
    ----------
    step
        Called with what the returned one is called with.
    amp
        ``"off"``, ``"bf16"`` or ``"fp16"``.
    device
        Device of the computation.
    """
    if amp == "off":
        return step
    kind, dtype = type_of(device), PRECISIONS[amp]

    def lower(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(kind, dtype):
            return step(*args, **kwargs)

    return lower


def scaler_for(amp: str, device: torch.device | None) -> torch.amp.GradScaler | None:
    """Return a scaler of losses for ``"fp16"``, else None."""
    return torch.amp.GradScaler(type_of(device)) if amp == "fp16" else None


def type_of(device: torch.device | None) -> str:
    """Return the type of a device; that of a CPU if none is given."""
    return "cpu" if device is None else torch.device(device).type
