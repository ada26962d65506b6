"""The default training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from tqdm import tqdm

from alcore.errors import DivergedError, UsageError
from alcore.loaders import BatchLoader
from alcore.placement import evaluating, place
from alcore.protocols import EpochEnd, TrainStep, ValidateStep


class DefaultTrainingLoop:
    """Train for some epochs: forward, backward and one optimizer step for each batch.

    Parameters
    ----------
    enable_static_capture
        Capture the training step as a CUDA graph. On a CPU there is nothing to capture, so it changes nothing
        there; on CUDA this version runs the step eagerly as well, with the same numbers.
    use_progress_bars
        Show a bar over the batches of a training that takes longer than a second.
    schedule
        Step the learning-rate scheduler after each ``"epoch"`` or after each ``"batch"``.

    Notes
    -----
    Losses are read from the device once an epoch. A loss that is NaN or infinite ends the training at the end
    of its epoch.
    """

    resumes_inside_epoch = True

    def __init__(
        self,
        enable_static_capture: bool = True,
        use_progress_bars: bool = True,
        schedule: Literal["epoch", "batch"] = "epoch",
    ) -> None:
        if schedule not in ("epoch", "batch"):
            raise UsageError(f"DefaultTrainingLoop: schedule is {schedule!r}; it must be 'epoch' or 'batch'.")
        self.enable_static_capture = enable_static_capture
        self.use_progress_bars = use_progress_bars
        self.schedule = schedule
        self._losses: list[torch.Tensor] = []  # of the epoch under way
        self._resumed: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the losses of the epoch under way, if one is."""
        return {"losses": torch.stack(self._losses).cpu()} if self._losses else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned, for the first epoch of the next call."""
        self._resumed = state.get("losses")

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
        **kwargs: Any,
    ) -> None:
        """Train `model` in place.

        Parameters
        ----------
        model
            The learner; it is put in train mode.
        optimizer
            Steps once a batch.
        train_dataloader
            Iterable over the batches of an epoch.
        max_epochs
            How often to go through it.
        validation_dataloader
            Gone through after each epoch, in eval mode and without gradients.
        train_step_fn
            ``step(model, batch)`` returns the loss; ``model.training_step(batch)`` where it is None.
        validate_step_fn
            ``step(model, batch)`` may return a scalar; ``model.validation_step(batch)`` where it is None.
        lr_scheduler
            Stepped as `schedule` says; one that watches a metric gets the validation loss, else the loss.
        device, dtype
            Where batches are put, and the type of their floating-point tensors, if the loader doesn't do it.
        on_epoch_end
            Called with the epoch and its mean losses.
        **kwargs
            Not used.

        Raises
        ------
        DivergedError
            When the mean loss of an epoch is NaN or infinite.
        """
        if optimizer is None:
            raise UsageError(
                f"DefaultTrainingLoop has nothing to train: {type(model).__name__} has no trainable parameters. "
                "Use a training loop that fits it, or skip_training."
            )
        step = train_step_fn or (lambda model, batch: model.training_step(batch))
        clear_gradients = _gradient_clearer(optimizer)
        each_batch = lr_scheduler if self.schedule == "batch" else None
        model.train()
        self._losses = [] if self._resumed is None else list(self._resumed.to(device).unbind())
        self._resumed = None
        for epoch in range(max_epochs):
            for batch in self._bar(_placed(train_dataloader, device, dtype), epoch, max_epochs):
                clear_gradients()
                loss = step(model, batch)
                loss.backward()
                optimizer.step()
                if each_batch is not None:
                    each_batch.step()
                self._losses.append(loss.detach())
            metrics = {"loss": _mean(self._losses, epoch)}
            if validation_dataloader is not None:
                value = self._validate(model, _placed(validation_dataloader, device, dtype), validate_step_fn)
                if value is not None:
                    metrics["validation_loss"] = value
            if lr_scheduler is not None and each_batch is None:
                _step(lr_scheduler, metrics)
            self._losses = []
            if on_epoch_end is not None:
                on_epoch_end(epoch, metrics)

    def _bar(self, batches: Iterable[Any], epoch: int, epochs: int) -> Iterable[Any]:
        """Show a bar on a terminal; it appears after a second, and leaves nothing behind."""
        if not self.use_progress_bars:
            return batches
        return tqdm(  # type: ignore[no-any-return]
            batches, desc=f"epoch {epoch + 1}/{epochs}", unit="batch", delay=1, leave=False, disable=None
        )

    @staticmethod
    def _validate(model: Any, batches: Iterable[Any], given: ValidateStep | None) -> float | None:
        """Return the mean of what the validation step returned, or None if it returned nothing."""
        step = given or (lambda model, batch: model.validation_step(batch))
        with evaluating(model):
            values = [value for batch in batches if (value := step(model, batch)) is not None]
        return math.fsum(map(float, values)) / len(values) if values else None


def _placed(batches: Iterable[Any], device: torch.device | None, dtype: torch.dtype | None) -> Iterable[Any]:
    if isinstance(batches, BatchLoader) or (device is None and dtype is None):
        return batches
    return _Placed(batches, device, dtype)


class _Placed:
    """Batches of a loader that doesn't place them itself."""

    def __init__(self, batches: Iterable[Any], device: Any, dtype: Any) -> None:
        self._batches, self._device, self._dtype = batches, device, dtype

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Any:
        return (place(batch, self._device, self._dtype) for batch in self._batches)


def _gradient_clearer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return what does as ``optimizer.zero_grad()`` does, without its profiling when it is torch's own."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        return optimizer.zero_grad

    def clear() -> None:
        for group in optimizer.param_groups:  # looked up each time: a group may join between epochs
            for parameter in group["params"]:
                parameter.grad = None

    return clear


def _mean(losses: list[torch.Tensor], epoch: int) -> float:
    if not losses:
        raise UsageError("DefaultTrainingLoop: the training loader gave no batch; is anything labelled?")
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise DivergedError(
            f"the training loss became {mean} in epoch {epoch}; a smaller learning rate, or a look at the inputs and "
            "targets, usually helps."
        )
    return mean


def _step(scheduler: Any, metrics: dict[str, float]) -> None:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(metrics.get("validation_loss", metrics["loss"]))
    else:
        scheduler.step()
