"""What the training phase needs: a step function, an optimizer, a scheduler, the initial weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from alcore.config import OptimizerConfig
from alcore.errors import UsageError
from alcore.inference.outputs import default_loss, kind_of
from alcore.pools import DataInfo


def resolve_train_step(given: Any, learner: Any, info: DataInfo | None) -> Callable[[Any, Any], torch.Tensor]:
    """Return the training step: the one given, else the learner's own, else its task's default loss.

    Raises
    ------
    UsageError
        When there is none of the three, or what is given can't be called.
    """
    if given is not None:
        if not callable(given):
            raise UsageError(f"train_step_fn is a {type(given).__name__}; it must be callable as step(model, batch).")
        return given  # type: ignore[no-any-return]
    own = getattr(learner, "training_step", None)
    if callable(own):
        return lambda model, batch: model.training_step(batch)
    if info is None:
        raise UsageError(
            f"there is no training step: pass train_step_fn(model, batch), give {type(learner).__name__} a method "
            "training_step(batch), or give the training pool an attribute info (alcore.DataInfo) whose task has a "
            "default loss."
        )
    return default_loss(info.task, kind_of(learner), info.class_weights)


def resolve_validate_step(given: Any, learner: Any, info: DataInfo | None) -> Callable[[Any, Any], Any] | None:
    """Return the validation step: the one given, the learner's, its task's loss, or None."""
    if given is not None:
        if not callable(given):
            raise UsageError(
                f"validate_step_fn is a {type(given).__name__}; it must be callable as step(model, batch)."
            )
        return given  # type: ignore[no-any-return]
    if callable(getattr(learner, "validation_step", None)):
        return lambda model, batch: model.validation_step(batch)
    return None if info is None else default_loss(info.task, kind_of(learner), info.class_weights)


_OPTIONAL = {"validation_dataloader", "validate_step_fn", "lr_scheduler", "device", "dtype", "on_epoch_end"}


def not_taken(loop: Callable[..., Any]) -> set[str]:
    """Return which optional arguments of the `TrainingLoop` protocol a loop doesn't take."""
    try:
        parameters = inspect.signature(loop).parameters.values()
    except (TypeError, ValueError):
        return set()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set()
    return _OPTIONAL - {parameter.name for parameter in parameters}


class Optimization:
    """Optimizer and scheduler through the steps of a run.

    Parameters
    ----------
    config
        What they are made of.
    learner
        Whose parameters they change; without trainable ones there is no optimizer.
    fine_tuning_lr
        Learning rate of every parameter group from step 1 on, for schedulers too.
    fresh_each_step
        Make both anew at each step.
    reset_learner
        Give the learner its initial weights at each step.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        learner: Any,
        *,
        fine_tuning_lr: float | None,
        fresh_each_step: bool,
        reset_learner: bool,
    ) -> None:
        self._config, self._learner = config, learner
        self._fine_tuning_lr, self._fresh_each_step = fine_tuning_lr, fresh_each_step
        self._initial = copy.deepcopy(learner.state_dict()) if reset_learner else None
        self._resumed = False
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: Any = None

    def prepare(self, step: int) -> None:
        """Make learner, optimizer and scheduler ready for the training of a step."""
        if self._resumed:  # they are in the middle of this step's training
            self._resumed = False
            return
        if step and self._initial is not None:
            self._learner.load_state_dict(self._initial)
        parameters = [one for one in _parameters(self._learner) if one.requires_grad]
        if not parameters:
            self.optimizer = self.scheduler = None
            return
        fresh = self.optimizer is None or self._fresh_each_step
        if fresh:
            self.optimizer = self._config.optimizer_cls(parameters, **self._config.optimizer_kwargs)
        assert self.optimizer is not None
        fine_tune = self._fine_tuning_lr is not None and step > 0
        if fine_tune and (fresh or step == 1):
            for group in self.optimizer.param_groups:
                group["lr"] = self._fine_tuning_lr
                group.pop("initial_lr", None)
        if self._config.scheduler_cls is not None and (fresh or (fine_tune and step == 1)):
            self.scheduler = self._config.scheduler_cls(self.optimizer, **self._config.scheduler_kwargs)

    def restore(self, step: int, state: Mapping[str, Any], *, inside: bool) -> None:
        """Take back the optimizer and scheduler of a checkpoint.

        Parameters
        ----------
        step
            The step that they were saved in.
        state
            With ``optimizer`` and ``scheduler``, their states or None.
        inside
            Whether the step's training goes on with them.
        """
        if state["optimizer"] is not None:
            weights = copy.deepcopy(self._learner.state_dict())
            self.prepare(step)
            self._learner.load_state_dict(weights)
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scheduler"] is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        self._resumed = inside


def _parameters(learner: Any) -> list[torch.nn.Parameter]:
    parameters = getattr(learner, "parameters", None)
    return list(parameters()) if callable(parameters) else []
