"""The training phase: what the training loop is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from alcore.config import TrainingConfig
from alcore.distributed.manager import DistributedManager
from alcore.distributed.ranks import Ranks
from alcore.errors import UsageError
from alcore.protocols import DataInfo, EpochEnd, Phase
from alcore.training.class_balance import ClassBalance
from alcore.training.ddp import ParallelStep, share_buffers
from alcore.training.extra_arguments import Taker, with_keywords
from alcore.training.loader import LoaderFactory
from alcore.training.optimizer import Optimization, check_optimizer
from alcore.training.steps import (
    LOOP_ARGUMENTS,
    arguments_not_taken,
    check_loop,
    keywords_of_loop,
    resolve_train_step,
    resolve_validate_step,
    validation_asked_for,
)


class Trainer:
    """Trains the learner by calling the training loop once a step.

    Parameters
    ----------
    loop
        The training loop.
    learner
        What is trained.
    config
        Pools, epochs, optimizer.
    loaders
        Makes the batches.
    balance
        How often and how much the classes count.
    device, dtype
        Where learner and batches are, and their floating-point type.
    fine_tuning_lr, reset_optim_states, model_checkpoint_frequency
        As in `alcore.config.DriverConfig`.
    ranks
        The processes that train together.
    manager
        How they average gradients; None with one process.

    Attributes
    ----------
    optimization : Optimization or None
        Optimizer and scheduler, once `make_optimization` was called.
    first_step : int or None
        The first step that trained; later ones are fine-tuning.
    """

    def __init__(
        self,
        loop: Callable[..., Any],
        learner: Any,
        config: TrainingConfig,
        loaders: LoaderFactory,
        balance: ClassBalance,
        *,
        device: torch.device,
        dtype: torch.dtype,
        fine_tuning_lr: float | None,
        reset_optim_states: bool,
        model_checkpoint_frequency: int = 0,
        ranks: Ranks,
        manager: DistributedManager | None,
    ) -> None:
        self.loop, self._learner, self._config = loop, learner, config
        self._loaders, self._balance = loaders, balance
        self._device, self._dtype = device, dtype
        self._fine_tuning_lr, self._reset_optim_states = fine_tuning_lr, reset_optim_states
        self._ranks, self._manager = ranks, manager
        self._model_checkpoint_frequency = model_checkpoint_frequency
        self._not_taken = arguments_not_taken(loop)
        self.optimization: Optimization | None = None
        self.first_step: int | None = None

    def check(self) -> None:
        """Raise `UsageError` if the loop can't be called, or optimizer and scheduler can't be made."""
        check_loop(self.loop)
        own, given = self._loops_own("checkpoint_frequency"), self._model_checkpoint_frequency
        if own and given and own != given:
            raise UsageError(
                f"the training loop says checkpoint_frequency={own}, and DriverConfig says "
                f"model_checkpoint_frequency={given}; give one of them."
            )
        check_optimizer(self._config.optimizer_config, self._learner)

    @property
    def epochs_between_checkpoints(self) -> int:
        """Epochs between two checkpoints inside training; 0 disables these."""
        return self._model_checkpoint_frequency or self._loops_own("checkpoint_frequency") or 0

    def step_functions(self, train_step_fn: Any, validate_step_fn: Any) -> tuple[Any, Any]:
        """Return the step functions that were given to the run, else those of the loop, else None."""
        return (
            self._loops_own("train_step_fn") if train_step_fn is None else train_step_fn,
            self._loops_own("validate_step_fn") if validate_step_fn is None else validate_step_fn,
        )

    def takers(self, train_step_fn: Any, validate_step_fn: Any) -> list[Taker]:
        """Return the functions that are offered the keyword arguments of a run: steps and training loop."""
        train_step_fn, validate_step_fn = self.step_functions(train_step_fn, validate_step_fn)
        steps = [
            ("training step", train_step_fn, getattr(self._learner, "training_step", None)),
            ("validation step", validate_step_fn, getattr(self._learner, "validation_step", None)),
        ]
        takers = [Taker(f"the {what}", given, 2, by_name=True) for what, given, _ in steps if given is not None]
        takers += [
            Taker(f"the learner's {what}", own, 1, by_name=True)
            for what, given, own in steps
            if given is None and callable(own)
        ]
        return [*takers, Taker("the training loop", self.loop, 1, by_name=True, reserved=LOOP_ARGUMENTS)]

    def _loops_own(self, member: str) -> Any:
        return getattr(self.loop, member, None)

    def make_optimization(self) -> None:
        """Make optimizer and scheduler for the learner as it is now, which counts as its initial state."""
        self.optimization = Optimization(
            self._config.optimizer_config,
            self._learner,
            fine_tuning_lr=self._fine_tuning_lr,
            fresh_each_step=self._reset_optim_states,
            reset_learner=self._config.reset_learner,
        )

    def restore(self, first_step: int | None, step: int, state: Mapping[str, Any], *, inside: bool) -> None:
        """Take back optimizer and scheduler of a checkpoint.

        Parameters
        ----------
        first_step
            The first step that trained; None where none has.
        step
            The step that they were saved in.
        state
            With ``optimizer`` and ``scheduler``.
        inside
            Whether that step's training goes on with them.
        """
        assert self.optimization is not None
        self.first_step = first_step
        self.optimization.restore(step - (first_step or 0), state, inside=inside)

    def train(
        self,
        step: int,
        info: DataInfo | None,
        *,
        seed: int,
        epochs_done: int,
        finished: bool,
        train_step_fn: Any,
        validate_step_fn: Any,
        on_epoch_end: EpochEnd,
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        """Train for one step.

        Parameters
        ----------
        step
            Its number.
        info
            What is known about the data, with class weights.
        seed
            Of the run.
        epochs_done
            How many epochs of this step were done before the run was resumed.
        finished
            Whether its training was over before the run was resumed; the loop is not called then.
        train_step_fn, validate_step_fn
            What the user gave to `Driver.run`.
        on_epoch_end
            Called by the loop after each epoch.
        keywords
            Keyword arguments that the user gave to `Driver.run`; steps and loop are given those that they take.
        """
        keywords = keywords or {}
        assert self.optimization is not None
        train_step_fn, validate_step_fn = self.step_functions(train_step_fn, validate_step_fn)
        if self.first_step is None:
            self.first_step = step
        training = step - self.first_step
        self.optimization.prepare(training)
        if not (finished or epochs_done):
            self._show_labeled()
        step_fn = resolve_train_step(train_step_fn, self._learner, info, keywords)
        shard = (0, 1)
        if self._ranks.size > 1 and self.optimization.optimizer is not None:
            assert self._manager is not None
            step_fn = with_keywords(ParallelStep(self._learner, step_fn, self._manager), 2, keywords)
            shard = (self._ranks.rank, self._ranks.size)
        order = (seed, step, Phase.TRAINING.value)
        held_out = self._config.val_datapool
        if held_out is not None and not len(held_out):  # its labels have not come yet
            held_out = None
        arguments: dict[str, Any] = {
            "optimizer": self.optimization.optimizer,
            "train_dataloader": self._loaders.shuffled(
                self._config.train_datapool, order, epochs_done, shard, self._balance.choose
            ),
            "max_epochs": self._config.epochs(training) - epochs_done,
            "validation_dataloader": None if held_out is None else self._loaders.ordered(held_out, self.share_buffers),
            "train_step_fn": step_fn,
            "validate_step_fn": resolve_validate_step(validate_step_fn, self._learner, info, keywords),
            "lr_scheduler": self.optimization.scheduler,
            "device": self._device,
            "dtype": self._dtype,
            "on_epoch_end": on_epoch_end,
            "validation_asked_for": validation_asked_for(validate_step_fn, self._learner),
        }
        for name in self._not_taken:
            del arguments[name]
        arguments |= keywords_of_loop(self.loop, keywords)
        if not finished and (not epochs_done or arguments["max_epochs"] > 0):
            self.loop(self._learner, **arguments)

    def _show_labeled(self) -> None:
        """Let a learner look at the labeled items before it is trained on them."""
        begin_training = getattr(self._learner, "begin_training", None)
        if callable(begin_training):
            begin_training(self._loaders.large_batches(self._config.train_datapool))
            self.share_buffers()

    def share_buffers(self) -> None:
        """Copy the learner's buffers from rank 0 to all ranks."""
        share_buffers(self._learner, self._ranks)
