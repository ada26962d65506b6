"""Which function computes the loss of a batch: the one given, the learner's own, or the default of its task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference.outputs import default_loss, kind_of
from alcore.protocols import DataInfo

_REQUIRED = ("optimizer", "train_dataloader", "max_epochs")
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
        When there is none of the three, or what is given can't be called with a model and a batch.
    """
    if given is not None:
        check_call("train_step_fn", given, ["model", "batch"])
        return given  # type: ignore[no-any-return]
    if callable(getattr(learner, "training_step", None)):
        return lambda model, batch: model.training_step(batch)
    if info is None:
        raise UsageError(
            f"there is no training step: pass train_step_fn(model, batch), give {type(learner).__name__} a method "
            "training_step(batch), or give the training pool an attribute info (alcore.DataInfo) whose task has a "
            "default loss."
        )
    return default_loss(info.task, kind_of(learner, info.task), info.class_weights)


def resolve_validate_step(given: Any, learner: Any, info: DataInfo | None) -> Callable[[Any, Any], Any] | None:
    """Return the validation step: the one given, the learner's own, the default loss of its task, or None."""
    if given is not None:
        check_call("validate_step_fn", given, ["model", "batch"])
        return given  # type: ignore[no-any-return]
    if callable(getattr(learner, "validation_step", None)):
        return lambda model, batch: model.validation_step(batch)
    return None if info is None else default_loss(info.task, kind_of(learner, info.task), info.class_weights)


def check_call(what: str, function: Any, arguments: Sequence[str]) -> None:
    """Raise `UsageError` if a function can't be called with these positional arguments.

    Parameters
    ----------
    what
        The name of the function in the message.
    function
        What the user gave.
    arguments
        What it is given, in words.
    """
    form = f"{what}({', '.join(arguments)})"
    if not callable(function):
        raise UsageError(f"{what} is a {type(function).__name__}; it must be callable as {form}.")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise UsageError(
            f"{what} is {getattr(function, '__qualname__', type(function).__name__)}, which can't be called as {form}: "
            f"{error}."
        ) from error
    except ValueError:  # a signature that can't be read
        return


def check_loop(loop: Any) -> None:
    """Raise `UsageError` if a training loop can't be called with the arguments that it is given."""
    try:
        signature = inspect.signature(loop)
    except (TypeError, ValueError):  # a signature that can't be read
        return
    try:
        signature.bind("model", **dict.fromkeys([*_REQUIRED, *(_OPTIONAL - arguments_not_taken(loop))]))
    except TypeError as error:
        raise UsageError(
            f"the training loop {getattr(loop, '__qualname__', type(loop).__name__)} can't be called as loop(model, "
            f"{', '.join(f'{name}=...' for name in _REQUIRED)}): {error}. alcore.protocols.TrainingLoop lists what a "
            "loop is given."
        ) from error


def arguments_not_taken(loop: Callable[..., Any]) -> set[str]:
    """Return which optional arguments of the `TrainingLoop` protocol a loop doesn't take."""
    try:
        parameters = inspect.signature(loop).parameters.values()
    except (TypeError, ValueError):
        return set()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set()
    return _OPTIONAL - {parameter.name for parameter in parameters}
