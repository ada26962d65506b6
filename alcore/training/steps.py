"""Which function computes the loss of a batch: the one given, the learner's own, or the default of its task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.outputs.kinds import default_loss, kind_of
from alcore.protocols import DataInfo
from alcore.training.extra_arguments import accepted, taken_by, with_keywords

_NONE: Mapping[str, Any] = MappingProxyType({})
_REQUIRED = ("optimizer", "train_dataloader", "max_epochs")
_OPTIONAL = {
    "validation_dataloader",
    "train_step_fn",
    "validate_step_fn",
    "lr_scheduler",
    "device",
    "dtype",
    "on_epoch_end",
    "validation_asked_for",
}


LOOP_ARGUMENTS = frozenset({"model", *_REQUIRED, *_OPTIONAL})
"""What a training loop is given in any case."""


def own_step(given: Any, learner: Any) -> str | None:
    """Return who gives the training step, in the words of a message; None where the task's default loss is used."""
    if given is not None:
        return "a train_step_fn is given"
    if callable(getattr(learner, "training_step", None)):
        return f"{type(learner).__name__} has a training_step"
    return None


def resolve_train_step(
    given: Any, learner: Any, info: DataInfo | None, keywords: Mapping[str, Any] = _NONE
) -> Callable[..., torch.Tensor]:
    """Return the training step: the one given, else the learner's own, else the default loss of its task.

    Parameters
    ----------
    given
        What the user gave, or None.
    learner
        The learner.
    info
        What is known about the data.
    keywords
        Keyword arguments of the run; the step is given those that it takes.

    Raises
    ------
    UsageError
        When there is none of the three, or what is given can't be called with a model and a batch.
    """
    if given is not None:
        check_call("train_step_fn", given, ["model", "batch"], keywords)
        return with_keywords(given, 2, keywords)
    if callable(getattr(learner, "training_step", None)):
        return _method(learner, "training_step", keywords)
    if info is None:
        raise UsageError(
            f"there is no training step: pass train_step_fn(model, batch), give {type(learner).__name__} a method "
            "training_step(batch), or give the training pool an attribute info (alcore.DataInfo) whose task has a "
            "default loss."
        )
    return with_keywords(default_loss(info.task, kind_of(learner, info.task), info.class_weights), 2, keywords)


def validation_asked_for(given: Any, learner: Any) -> bool:
    """Return whether the validation step is one of the user's, who may want the loss of each epoch."""
    return given is not None or callable(getattr(learner, "validation_step", None))


def resolve_validate_step(
    given: Any, learner: Any, info: DataInfo | None, keywords: Mapping[str, Any] = _NONE
) -> Callable[..., Any] | None:
    """Return the validation step: the one given, the learner's own, the default loss of its task, or None.

    Parameters are those of `resolve_train_step`.
    """
    if given is not None:
        check_call("validate_step_fn", given, ["model", "batch"], keywords)
        return with_keywords(given, 2, keywords)
    if callable(getattr(learner, "validation_step", None)):
        return _method(learner, "validation_step", keywords)
    if info is None:
        return None
    return with_keywords(default_loss(info.task, kind_of(learner, info.task), info.class_weights), 2, keywords)


def _method(learner: Any, name: str, keywords: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a step that calls a method of the model with those of the keyword arguments that it takes."""
    taken = accepted(getattr(learner, name), 1, (), keywords)[1]
    return with_keywords(lambda model, batch: getattr(model, name)(batch, **taken), 2, keywords)


def check_call(what: str, function: Any, arguments: Sequence[str], keywords: Mapping[str, Any] = _NONE) -> None:
    """Raise `UsageError` if a function can't be called with these arguments.

    Parameters
    ----------
    what
        The name of the function in the message.
    function
        What the user gave.
    arguments
        What it is given by position, in words.
    keywords
        What it is given by name, if it takes it.
    """
    form = f"{what}({', '.join(arguments)})"
    if not callable(function):
        raise UsageError(f"{what} is a {type(function).__name__}; it must be callable as {form}.")
    try:
        inspect.signature(function).bind(*arguments, **accepted(function, len(arguments), (), keywords)[1])
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


def keywords_of_loop(loop: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return those keyword arguments of a run that a loop takes, but for those that it is given in any case."""
    taken = taken_by(loop, 1) if keywords else None
    return {
        name: value
        for name, value in keywords.items()
        if taken is not None and name not in LOOP_ARGUMENTS and (taken.any_name or name in taken.names)
    }
