"""Which function computes the loss of a batch: the one given, the learner's own, or the default of its task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference.outputs import default_loss, kind_of
from alcore.protocols import DataInfo

_OPTIONAL = {
    "validation_dataloader",
    "train_step_fn",
    "validate_step_fn",
    "lr_scheduler",
    "device",
    "dtype",
    "on_epoch_end",
}


def own_step(given: Any, learner: Any) -> str | None:
    """Return who gives the training step, in the words of a message; None where the task's default loss is used."""
    if given is not None:
        return "a train_step_fn is given"
    if callable(getattr(learner, "training_step", None)):
        return f"{type(learner).__name__} has a training_step"
    return None


def resolve_train_step(given: Any, learner: Any, info: DataInfo | None) -> Callable[[Any, Any], torch.Tensor]:
    """Return the training step: the one given, else the learner's own, else the default loss of its task.

    Raises
    ------
    UsageError
        When there is none of the three, or what is given can't be called.
    """
    if given is not None:
        if not callable(given):
            raise UsageError(f"train_step_fn is a {type(given).__name__}; it must be callable as step(model, batch).")
        return given  # type: ignore[no-any-return]
    if callable(getattr(learner, "training_step", None)):
        return lambda model, batch: model.training_step(batch)
    if info is None:
        raise UsageError(
            f"there is no training step: pass train_step_fn(model, batch), give {type(learner).__name__} a method "
            "training_step(batch), or give the training pool an attribute info (alcore.DataInfo) whose task has a "
            "default loss."
        )
    return default_loss(info.task, kind_of(learner), info.class_weights)


def resolve_validate_step(given: Any, learner: Any, info: DataInfo | None) -> Callable[[Any, Any], Any] | None:
    """Return the validation step: the one given, the learner's own, the default loss of its task, or None."""
    if given is not None:
        if not callable(given):
            raise UsageError(
                f"validate_step_fn is a {type(given).__name__}; it must be callable as step(model, batch)."
            )
        return given  # type: ignore[no-any-return]
    if callable(getattr(learner, "validation_step", None)):
        return lambda model, batch: model.validation_step(batch)
    return None if info is None else default_loss(info.task, kind_of(learner), info.class_weights)


def arguments_not_taken(loop: Callable[..., Any]) -> set[str]:
    """Return which optional arguments of the `TrainingLoop` protocol a loop doesn't take."""
    try:
        parameters = inspect.signature(loop).parameters.values()
    except (TypeError, ValueError):
        return set()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set()
    return _OPTIONAL - {parameter.name for parameter in parameters}
