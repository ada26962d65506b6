"""The learner as a whole: device, weights, and which state it is in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore.tensors import bytes_of


def place_learner(learner: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Move a module to a device; any other learner is returned unchanged.

    Parameters
    ----------
    learner
        The learner.
    device
        The device to move to.
    dtype
        Floating-point type of all its parameters and buffers; each keeps its own where it is None.
    """
    return learner.to(device=device, dtype=dtype) if isinstance(learner, torch.nn.Module) else learner


def floating_type(learner: Any) -> torch.dtype:
    """Return the floating-point type of the batches that a learner is given.

    That is the type of its parameters. Where they have several, or none, it is torch's default, unless none of several
    has that one: then it is the type of the first.
    """
    parameters = learner.parameters() if isinstance(learner, torch.nn.Module) else ()
    kinds = list(dict.fromkeys(parameter.dtype for parameter in parameters if parameter.is_floating_point()))
    default = torch.get_default_dtype()
    return default if default in kinds or not kinds else kinds[0]


def model_state(learner: Any) -> dict[str, Any]:
    """Return the learner's ``state_dict`` as a plain dict; an empty one for a learner without the method."""
    return dict(learner.state_dict() or {}) if callable(getattr(learner, "state_dict", None)) else {}


def model_digest(learner: Any) -> str:
    """Return 16 hexadecimal digits that identify the learner's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model_state(learner).items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(bytes_of(value).numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def load_model(learner: Any, weights: Mapping[str, Any]) -> None:
    """Load the weights and buffers of a checkpoint into the learner.

    Raises
    ------
    UsageError
        When names or shapes of the weights are not those of the learner.
    """
    if not weights and not callable(getattr(learner, "load_state_dict", None)):
        return
    try:
        learner.load_state_dict(dict(weights))
    except (RuntimeError, KeyError) as error:
        raise UsageError(
            f"the learner is not the one of this run: {' '.join(str(error).split())[:300]}. "
            "Build it as it was built then."
        ) from error


def learner_state(context: RunContext) -> str:
    """Return text that identifies the state of the learner, or "" for a learner without a ``state_dict``.

    A learner that is trained may have state that its weights don't show, so its state counts as another in each step.
    """
    if not model_state(context.learner):
        return ""
    step = f"{context.active_learning_step_idx} " if context.trains else ""
    return step + model_digest(context.learner)
