"""The default training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from tqdm import tqdm

from alcore.distributed import average
from alcore.errors import DivergedError, UsageError, did_you_mean
from alcore.outputs import evaluating
from alcore.pools import to_device
from alcore.protocols import EpochEnd, RunContext, TrainStep, ValidateStep
from alcore.training import BatchLoader, FittingLoop
from alcore_torchloop.compiling import Compiler
from alcore_torchloop.early_stopping import EarlyStopping
from alcore_torchloop.precision import PRECISIONS, in_precision, scaler_for
from alcore_torchloop.stepping import Stepper
from alcore_torchloop.train_step import Step, step_for

_OF_EPOCHS: dict[str, Any] = {
    "schedule": "epoch",
    "accumulate": 1,
    "clip_norm": None,
    "clip_value": None,
    "amp": "off",
    "patience": None,
    "min_delta": 0.0,
    "train_step_fn": None,
    "validate_step_fn": None,
    "checkpoint_frequency": 0,
}
"""Options of a training in epochs, with their defaults."""


class DefaultTrainingLoop:
    """Train for a number of epochs: forward, backward and an optimizer step for each batch, or window of batches.

    Parameters
    ----------
    enable_static_capture
        Capture the training step; see `capture`.
    use_progress_bars
        Show a progress bar for each epoch that takes longer than a second.
    schedule
        Step the learning-rate scheduler after each ``"epoch"``, or with the optimizer, after each ``"batch"``.
    accumulate
        Batches whose gradients are averaged into one step of the optimizer; the last window of an epoch may be smaller.
    clip_norm
        Clip the norm of all gradients together to this before a step.
    clip_value
        Clip each element of the gradients to this before a step.
    amp
        Compute in mixed precision: ``"bf16"``, or ``"fp16"`` with losses that are scaled; ``"off"`` does not.
    patience
        End a training after this many epochs without a lower validation loss, and restore the weights with the lowest
        one; None trains all epochs.
    min_delta
        Amount by which a validation loss must be lower than the lowest one.
    capture
        Kind of static capture. ``"graph"`` replays the step from CUDA graphs, one for each shape of batches, and has no
        effect on a CPU. ``"compile"`` compiles forward and backward by `torch.compile`, on any device, which takes
        time and is for long runs; results differ by rounding.
    train_step_fn, validate_step_fn
        The steps of a training whose call, or whose run, is given none.
    device, dtype
        Where batches are moved to, and the type of their floating-point tensors, where the call says nothing. A run
        always says: another device or dtype than the run's is refused.
    checkpoint_frequency
        Let the run save a checkpoint every so many epochs, as ``DriverConfig.model_checkpoint_frequency`` does; 0 does
        not. A training without a run has nowhere to save to, and refuses it.

    Notes
    -----
    A learner with `fit_batches` is fitted by it, in place of all this.

    Losses are read from the device once an epoch. A loss that is NaN or infinite ends the training at the end
    of its epoch. In ``fp16`` the step of a batch with such a loss is skipped, and only an epoch without any other batch
    ends the training (Micikevicius et al. 2018, Mixed precision training, ICLR).
    """

    def __init__(
        self,
        enable_static_capture: bool = True,
        use_progress_bars: bool = True,
        schedule: Literal["epoch", "batch"] = "epoch",
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        amp: Literal["off", "bf16", "fp16"] = "off",
        patience: int | None = None,
        min_delta: float = 0.0,
        capture: Literal["graph", "compile"] = "graph",
        *,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint_frequency: int = 0,
    ) -> None:
        for name, step in (("train_step_fn", train_step_fn), ("validate_step_fn", validate_step_fn)):
            if step is not None and not callable(step):
                raise UsageError(f"DefaultTrainingLoop: {name} is {step!r}; it must be callable as step(model, batch).")
        for name, flag in (
            ("enable_static_capture", enable_static_capture),
            ("use_progress_bars", use_progress_bars),
        ):
            if not isinstance(flag, bool):
                raise UsageError(
                    f"DefaultTrainingLoop: {name} is {flag!r}; it must be True or False. The step functions, which are "
                    "the first arguments in PhysicsNeMo, are given by name: train_step_fn=..., validate_step_fn=..."
                )
        _one_of("schedule", schedule, ("epoch", "batch"))
        _one_of("capture", capture, ("graph", "compile"))
        _one_of("amp", amp, ("off", *PRECISIONS))
        for name, value, least in (
            ("accumulate", accumulate, 1),
            ("patience", patience, 1),
            ("min_delta", min_delta, 0),
            ("checkpoint_frequency", checkpoint_frequency, 0),
        ):
            if value is not None and not value >= least:
                raise UsageError(f"DefaultTrainingLoop: {name} is {value!r}; it must be at least {least}.")
        for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if bound is not None and not bound > 0:
                raise UsageError(f"DefaultTrainingLoop: {name} is {bound!r}; it must be above 0.")
        self.enable_static_capture, self.use_progress_bars, self.schedule = (
            enable_static_capture, use_progress_bars, schedule,
        )  # fmt: skip
        self.accumulate, self.clip_norm, self.clip_value, self.amp = accumulate, clip_norm, clip_value, amp
        self.patience, self.min_delta, self.capture = patience, min_delta, capture
        self.train_step_fn, self.validate_step_fn = train_step_fn, validate_step_fn
        self.device, self.dtype = None if device is None else torch.device(device), dtype
        self.checkpoint_frequency = checkpoint_frequency
        self._context: RunContext | None = None
        self._fitting = FittingLoop()
        self._compiler = Compiler() if capture == "compile" else None
        self._stepper: Stepper | None = None  # of the training under way
        self._early: EarlyStopping | None = None
        self._resumed: Mapping[str, Any] = {}

    def attach(self, context: RunContext) -> None:
        """Receive the run."""
        self._context = context
        self._fitting.attach(context)

    def check(self) -> None:
        """Raise `UsageError` if the learner has nothing to train, or the loop is for another device or dtype."""
        if self._context is not None:
            self._placed(self._context.device, self._context.dtype)
            learner = self._context.learner
            if _is_fitted(learner):
                self._refuse_options(learner)
                return
            parameters = getattr(learner, "parameters", None)
            if not callable(parameters) or not any(parameter.requires_grad for parameter in parameters()):
                raise _nothing_to_train(learner)

    def _refuse_options(self, learner: Any) -> None:
        """Raise `UsageError` if the loop has an option of a training in epochs, and the learner has none."""
        for name, default in _OF_EPOCHS.items():
            if getattr(self, name) != default:
                raise UsageError(
                    f"DefaultTrainingLoop: {name} is for a training in epochs, and {type(learner).__name__} is fitted "
                    "to all labels at once; leave it out, or use another learner."
                )

    def _placed(self, device: Any, dtype: torch.dtype | None) -> tuple[Any, torch.dtype | None]:
        """Return device and dtype of a call, else those of the loop."""
        for name, own, given in (("device", self.device, device), ("dtype", self.dtype, dtype)):
            if own is not None and given is not None and not _same(own, given):
                raise UsageError(
                    f"DefaultTrainingLoop: {name} is {own}, and that of the run is {given}; leave it out, or give "
                    f"DriverConfig({name}=...) the same."
                )
        return self.device if device is None else device, self.dtype if dtype is None else dtype

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch of the training under way depends on; empty between trainings."""
        state: dict[str, Any] = {}
        if self._stepper is not None and (stepper := self._stepper.state_dict()):
            state["stepper"] = stepper
        if self._early is not None:
            state["patience"] = self._early.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, for the next call."""
        self._resumed = state

    def __call__(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer | None,
        train_dataloader: Iterable[Any],
        max_epochs: int,
        validation_dataloader: Iterable[Any] | None = None,
        train_step_fn: TrainStep | None = None,
        validate_step_fn: ValidateStep | None = None,
        lr_scheduler: Any | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        on_epoch_end: EpochEnd | None = None,
        validation_asked_for: bool = True,
        **kwargs: Any,
    ) -> None:
        """Train `model` in place.

        Parameters
        ----------
        model
            The learner; it is put in train mode.
        optimizer
            Steps once a batch, or once a window of batches.
        train_dataloader
            Iterable over the batches of an epoch.
        max_epochs
            Number of epochs.
        validation_dataloader
            Iterable over validation batches, used after each epoch, or the last one (`validation_asked_for`), in eval
            mode and without gradients.
        train_step_fn
            ``step(model, batch)`` returns the loss; the loop's own, else ``model.training_step(batch)``, if None.
        validate_step_fn
            ``step(model, batch)`` may return a scalar; the loop's own, else ``model.validation_step(batch)``, if
            None. Without any there is no validation.
        lr_scheduler
            Stepped as `schedule` says; `ReduceLROnPlateau` is given the validation loss, else the training loss.
        device, dtype
            Where batches are moved to, and the type of their floating-point tensors; not used for alcore's own loaders.
        on_epoch_end
            Called with the epoch and its mean losses.
        validation_asked_for
            Whether to validate after each epoch. If False, that is done where `patience` or `ReduceLROnPlateau` watch
            the validation loss; else after the last epoch alone.
        **kwargs
            Not used.

        Raises
        ------
        DivergedError
            If the mean loss of an epoch is NaN or infinite.
        """
        if _is_fitted(model):
            self._fitting(model, None, train_dataloader)
            return
        device, dtype = self._placed(device, dtype)
        train_step_fn = self.train_step_fn if train_step_fn is None else train_step_fn
        validate_step_fn = self.validate_step_fn if validate_step_fn is None else validate_step_fn
        if self.checkpoint_frequency and on_epoch_end is None:
            raise UsageError(
                "DefaultTrainingLoop: checkpoint_frequency is for a run, which saves checkpoints, and this training "
                "has no on_epoch_end that could; leave it out."
            )
        if optimizer is None:
            raise _nothing_to_train(model)
        if self.schedule == "batch" and _is_plateau(lr_scheduler):
            raise UsageError(
                "DefaultTrainingLoop: ReduceLROnPlateau watches the loss of an epoch, so it can't be stepped after "
                "each batch; use schedule='epoch'."
            )
        try:
            if validate_step_fn is None and not callable(getattr(model, "validation_step", None)):
                validation_dataloader = None  # the validation pool is for metrology alone
            stepper, early = self._begin(model, optimizer, device, validated=validation_dataloader is not None)
            step = step_for(
                train_step_fn or _own_step, stepper, model, device,
                amp=self.amp, capture=self.enable_static_capture, compiler=self._compiler,
            )  # fmt: skip
            each = validation_asked_for or early is not None or _is_plateau(lr_scheduler)
            model.train()
            for epoch in range(max_epochs):
                if early is not None and early.ended:
                    break
                batches = self._bar(_on_device(train_dataloader, device, dtype), epoch, max_epochs)
                losses = self._epoch(model, batches, step, stepper, lr_scheduler)
                metrics = {"loss": _mean(losses, epoch, skipping=self.amp == "fp16")}
                if validation_dataloader is not None and (each or epoch == max_epochs - 1):
                    value = self._validate(
                        model, _on_device(validation_dataloader, device, dtype), validate_step_fn, device
                    )
                    if value is not None:
                        metrics["validation_loss"] = value
                if lr_scheduler is not None and self.schedule == "epoch":
                    _step(lr_scheduler, metrics)
                if early is not None:
                    self._stop_early(early, metrics, last=epoch == max_epochs - 1)
                if on_epoch_end is not None:
                    on_epoch_end(epoch, metrics)
        finally:
            self._stepper, self._early = None, None

    def _begin(
        self, model: Any, optimizer: torch.optim.Optimizer, device: torch.device | None, *, validated: bool
    ) -> tuple[Stepper, EarlyStopping | None]:
        """Make the stepper and the early stopping of a training, with the state of a resumed one."""
        if self.patience is not None and not validated:
            raise UsageError(
                "DefaultTrainingLoop: patience watches the validation loss, and there is no validation; give a "
                "val_datapool, or leave patience out."
            )
        resumed, self._resumed = self._resumed, {}
        scaler = scaler_for(self.amp, device)
        self._stepper = Stepper(optimizer, self.accumulate, self.clip_norm, self.clip_value, scaler)
        self._stepper.load_state_dict(resumed.get("stepper", {}))
        if self.patience is not None:
            self._early = EarlyStopping(model, self.patience, self.min_delta)
            if "patience" in resumed:
                self._early.load_state_dict(resumed["patience"])
        return self._stepper, self._early

    def _epoch(
        self, model: Any, batches: Iterable[Any], step: Step, stepper: Stepper, scheduler: Any
    ) -> list[torch.Tensor]:
        """Train for one epoch; return the losses of its batches."""
        each_step = scheduler if self.schedule == "batch" else None
        losses: list[torch.Tensor] = []
        keep = losses.append
        for batch in batches:
            loss, stepped = step(model, batch)
            if each_step is not None and stepped:
                each_step.step()
            keep(loss)
        if stepper.end_epoch() and each_step is not None:
            each_step.step()
        return losses

    def _stop_early(self, early: EarlyStopping, metrics: Mapping[str, float], *, last: bool) -> None:
        """Add the epoch to early stopping; the best weights are restored before a checkpoint is saved."""
        if "validation_loss" not in metrics:
            raise UsageError(
                "DefaultTrainingLoop: patience watches the validation loss, and the validation step returns none."
            )
        early.add(metrics["validation_loss"])
        if last or early.ended:
            early.restore_best()

    def _bar(self, batches: Iterable[Any], epoch: int, epochs: int) -> Iterable[Any]:
        """Show a progress bar on a terminal; it appears after a second, and is removed at the end."""
        if not self.use_progress_bars:
            return batches
        return tqdm(  # type: ignore[no-any-return]
            batches, desc=f"epoch {epoch + 1}/{epochs}", unit="batch", delay=1, leave=False, disable=None
        )

    def _validate(
        self, model: Any, batches: Iterable[Any], given: ValidateStep | None, device: torch.device | None
    ) -> float | None:
        """Return the mean of what the validation step returned, or None if it returned nothing."""
        step = in_precision(given or (lambda model, batch: model.validation_step(batch)), self.amp, device)
        with evaluating(model):
            values = [value for batch in batches if (value := step(model, batch)) is not None]
        return average(math.fsum(map(float, values)) / len(values)) if values else None


def _is_plateau(scheduler: Any) -> bool:
    return isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def _is_fitted(learner: Any) -> bool:
    return callable(getattr(learner, "fit_batches", None))


def _nothing_to_train(learner: Any) -> UsageError:
    return UsageError(
        f"DefaultTrainingLoop has nothing to train: {type(learner).__name__} has no trainable parameters, and no "
        "fit_batches(batches, generator); use a training loop for such a learner, or skip_training."
    )


def _same(own: Any, given: Any) -> bool:
    """Return whether two devices, or two dtypes, are the same; a device without a number is any of its kind."""
    if isinstance(own, torch.device):
        given = torch.device(given)
        return own.type == given.type and (own.index is None or given.index is None or own.index == given.index)
    return bool(own == given)


def _one_of(name: str, value: str, names: Sequence[str]) -> None:
    if value not in names:
        raise UsageError(f"DefaultTrainingLoop: {name} is {value!r}: {did_you_mean(str(value), names)}.")


def _own_step(model: Any, batch: Any) -> torch.Tensor:
    loss: torch.Tensor = model.training_step(batch)
    return loss


def _mean(losses: list[torch.Tensor], epoch: int, *, skipping: bool) -> float:
    if not losses:
        raise UsageError("DefaultTrainingLoop: the training loader gave no batch; is anything labeled?")
    values = torch.stack(losses)
    if skipping and bool(torch.isfinite(values).any()):
        values = values[torch.isfinite(values)]
    mean = average(float(values.mean()))
    if not math.isfinite(mean):
        raise DivergedError(
            f"the training loss became {mean} in epoch {epoch}; try a smaller learning rate, and look for extreme "
            "inputs and targets."
        )
    return mean


def _step(scheduler: Any, metrics: dict[str, float]) -> None:
    if _is_plateau(scheduler):
        scheduler.step(metrics.get("validation_loss", metrics["loss"]))
    else:
        scheduler.step()


def _on_device(batches: Iterable[Any], device: torch.device | None, dtype: torch.dtype | None) -> Iterable[Any]:
    """Return batches on the learner's device; alcore's own loaders put theirs there."""
    if isinstance(batches, BatchLoader) or (device is None and dtype is None):
        return batches
    return _MovedBatches(batches, device, dtype)


class _MovedBatches:
    """The batches of a loader, moved to a device."""

    def __init__(self, batches: Iterable[Any], device: Any, dtype: Any) -> None:
        self._batches, self._device, self._dtype = batches, device, dtype

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return (to_device(batch, self._device, self._dtype) for batch in self._batches)
