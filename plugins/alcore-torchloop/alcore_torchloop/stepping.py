"""From the loss of a batch to a step of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from alcore_torchloop.backward import compute_gradients
from alcore_torchloop.fused_optimizers import is_untouched, update_of


class Stepper:
    """Computes gradients and steps the optimizer: once a batch, or once a window of batches.

    Parameters
    ----------
    optimizer
        The optimizer to step.
    accumulate
        Batches in a window, whose gradients are averaged.
    clip_norm
        Bound of the norm of all gradients together.
    clip_value
        Bound of each element of a gradient.
    scaler
        Scales losses in half precision; it may skip a step.
    direct
        Step some optimizers in fewer calls, if the result is the same to the bit.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
        direct: bool = True,
    ) -> None:
        self._optimizer, self._accumulate = optimizer, accumulate
        self._clip_norm, self._clip_value, self.scaler = clip_norm, clip_value, scaler
        self._clear = _gradient_clearer(optimizer)
        self._update = update_of(optimizer, direct=direct)
        self._simple = accumulate == 1 and clip_norm is None and clip_value is None and scaler is None
        self.gathered = 0
        """Batches in the open window."""

    def begin_batch(self) -> None:
        """Clear the gradients if a new window begins."""
        if not self.gathered:
            self._clear()

    def end_batch(self, loss: torch.Tensor) -> bool:
        """Compute gradients, and step the optimizer if the window is full; return whether it was stepped."""
        if self._simple:
            compute_gradients(loss)
            self._update()
            return True
        self.backward(loss)
        return self.advance()

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients of the loss of a batch, divided by the size of the window."""
        if self._accumulate > 1:
            loss = loss / self._accumulate
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]

    def take(self, parameters: Sequence[torch.nn.Parameter], gradients: Sequence[torch.Tensor | None]) -> None:
        """Add the gradients of a batch, computed elsewhere; the next batch may overwrite them."""
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if self._accumulate == 1:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)

    def advance(self) -> bool:
        """Count a batch with gradients, and step if the window is full; return whether the optimizer was stepped."""
        self.gathered += 1
        return self.gathered == self._accumulate and self.step()

    def can_be_recorded(self) -> bool:
        """Return whether a step runs on the device alone, so that it can be part of a graph.

        It does not if windows or the scaler decide on the host whether to step, or if there are hooks to call. Of
        torch's optimizers, those whose groups are all ``capturable`` keep their counters on the device, and SGD has
        none.
        """
        optimizer = self._optimizer
        if self._accumulate > 1 or self.scaler is not None or not is_untouched(optimizer):
            return False
        if type(optimizer) is torch.optim.SGD:
            return not any(group.get("differentiable") for group in optimizer.param_groups)
        own = type(optimizer).__module__.startswith("torch.optim.")
        return own and all(group.get("capturable") is True for group in optimizer.param_groups)

    def constants(self) -> tuple[list[Any], list[Any]]:
        """Return what a graph of a step depends on: the tensors of state and settings, and the other settings."""
        settings = [item for group in self._optimizer.param_groups for item in group.items() if item[0] != "params"]
        held = [value for state in self._optimizer.state.values() for value in state.values()]
        return (
            [value for value in (*held, *(value for _, value in settings)) if isinstance(value, torch.Tensor)],
            [item for item in settings if not isinstance(item[1], torch.Tensor)],
        )

    def end_epoch(self) -> bool:
        """Step with the mean gradients of an open window, if there is one; return whether the optimizer was stepped."""
        if not self.gathered:
            return False
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self._accumulate / self.gathered)
        return self.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epoch depends on: the scale of the losses."""
        return {} if self.scaler is None else {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that the optimizer steps."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def step(self) -> bool:
        """Clip the gradients and step the optimizer."""
        self.gathered = 0
        scaler = self.scaler
        if scaler is not None and (self._clip_norm is not None or self._clip_value is not None):
            scaler.unscale_(self._optimizer)
        if self._clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters(), self._clip_value)
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self._clip_norm)
        if scaler is None:
            self._update()
            return True
        scaler.step(self._optimizer)
        scaler.update()
        return True


def _gradient_clearer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return a function equivalent to ``optimizer.zero_grad()``, without the profiling of torch's own method."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        return optimizer.zero_grad

    def clear() -> None:
        for group in optimizer.param_groups:  # looked up each time, since a group may be added between epochs
            for parameter in group["params"]:
                parameter.grad = None

    return clear
