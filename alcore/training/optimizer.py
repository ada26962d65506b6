"""Optimizer and scheduler through the steps of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from alcore.config import OptimizerConfig
from alcore.errors import UsageError
from alcore.inference.learner import model_state


class Optimization:
    """The optimizer and the scheduler, made and changed as the configs say at each training.

    Parameters
    ----------
    config
        What they are made of.
    learner
        Whose parameters they change; without trainable ones there is no optimizer.
    fine_tuning_lr
        Learning rate of every parameter group from the second training on, for schedulers too.
    fresh_each_step
        Make both anew at each training.
    reset_learner
        Give the learner its initial weights at each training.

    Notes
    -----
    The learner as it is when this object is made counts as the initial one.
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
        self._initial = copy.deepcopy(model_state(learner)) if reset_learner else None
        self._resumed = False
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: Any = None

    def prepare(self, training: int) -> None:
        """Make learner, optimizer and scheduler ready for a training, counted from 0."""
        if self._resumed:  # they are in the middle of this training
            self._resumed = False
            return
        if training and self._initial:  # a learner without a state has nothing to be reset
            self._learner.load_state_dict(self._initial)
        parameters = [parameter for parameter in _parameters(self._learner) if parameter.requires_grad]
        if not parameters:
            self.optimizer = self.scheduler = None
            return
        fresh = self.optimizer is None or self._fresh_each_step
        if fresh:
            self.optimizer = self._config.optimizer_cls(parameters, **self._config.optimizer_kwargs)
        assert self.optimizer is not None
        fine_tune = self._fine_tuning_lr is not None and training > 0
        if fine_tune and (fresh or training == 1):
            for group in self.optimizer.param_groups:
                group["lr"] = self._fine_tuning_lr
                group.pop("initial_lr", None)
        if self._config.scheduler_cls is not None and (fresh or (fine_tune and training == 1)):
            self.scheduler = self._config.scheduler_cls(self.optimizer, **self._config.scheduler_kwargs)

    def state(self) -> dict[str, Any]:
        """Return ``optimizer`` and ``scheduler``: their states, or None."""
        return {
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def restore(self, training: int, state: Mapping[str, Any], *, inside: bool) -> None:
        """Take back the optimizer and scheduler of a checkpoint.

        Parameters
        ----------
        training
            The training that they were saved in, counted from 0.
        state
            What `state` returned.
        inside
            Whether that training goes on with them.
        """
        if state["optimizer"] is not None:
            weights = copy.deepcopy(self._learner.state_dict())
            self.prepare(training)
            self._learner.load_state_dict(weights)
            assert self.optimizer is not None
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scheduler"] is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        self._resumed = inside


def check_optimizer(config: OptimizerConfig, learner: Any) -> None:
    """Raise `UsageError` if optimizer or scheduler can't be made; nothing is changed, since both are thrown away."""
    parameters = [parameter for parameter in _parameters(learner) if parameter.requires_grad]
    if not parameters:
        return
    cls: Any = config.optimizer_cls
    kwargs = config.optimizer_kwargs
    try:
        optimizer = cls(parameters, **kwargs)
        if config.scheduler_cls is not None:
            cls, kwargs = config.scheduler_cls, config.scheduler_kwargs
            cls(optimizer, **kwargs)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"OptimizerConfig: {getattr(cls, '__name__', cls)} does not take {dict(kwargs)}: "
            f"{' '.join(str(error).split())}"
        ) from error


def _parameters(learner: Any) -> list[torch.nn.Parameter]:
    parameters = getattr(learner, "parameters", None)
    return list(parameters()) if callable(parameters) else []
