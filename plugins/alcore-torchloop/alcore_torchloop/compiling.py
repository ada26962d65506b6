"""Training steps by `torch.compile`, which fall back to eager steps if compiling fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore_torchloop.graph_cache import UnfitError, form_of, logger
from alcore_torchloop.stepping import Stepper

LossOf = Callable[[Any, Any], torch.Tensor]


class Compiler:
    """Compiles a function that returns a loss, and keeps the compiled function for further trainings.

    Attributes
    ----------
    given_up : bool
        Whether compiling failed, so that steps run eagerly.
    """

    def __init__(self) -> None:
        self.given_up = False
        self._last: tuple[LossOf, LossOf] | None = None

    def compiled(self, function: LossOf) -> LossOf:
        """Return `function`, compiled; torch compiles it when it is called with a new kind of batch."""
        if self._last is None or self._last[0] is not function:
            self._last = function, torch.compile(function)
        return self._last[1]

    def give_up(self, error: Exception) -> None:
        """Continue with eager steps, and warn with the reason."""
        self.given_up = True
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("this step can't be compiled and runs eagerly, with the same results: %s", why)


def compiled_step(compiler: Compiler, compiled: LossOf, eager: LossOf, stepper: Stepper) -> Callable[..., Any]:
    """Return a step that takes model and batch, and returns the loss and whether the optimizer was stepped.

    Parameters
    ----------
    compiler
        Remembers whether compiling failed.
    compiled, eager
        Two equivalent functions that return the loss of a batch.
    stepper
        Computes gradients and steps the optimizer.
    """
    seen: set[Any] = set()

    def first(model: Any, batch: Any) -> tuple[torch.Tensor, bool]:
        """Do a step that compiles, forward and backward; the effects of a failed one are undone."""
        stepper.begin_batch()
        before = _Before(model, stepper)
        try:
            loss = compiled(model, batch)
            stepper.backward(loss)
        except Exception as error:  # noqa: BLE001 - the eager step raises an error of the step itself
            before.restore()
            loss = eager(model, batch)
            compiler.give_up(error)
            stepper.backward(loss)
        return loss.detach(), stepper.advance()

    def step(model: Any, batch: Any) -> tuple[torch.Tensor, bool]:
        if not compiler.given_up:
            try:
                form = form_of(batch, [])
            except UnfitError:
                form = type(batch)
            if form not in seen:
                seen.add(form)
                return first(model, batch)
        stepper.begin_batch()
        loss = (eager if compiler.given_up else compiled)(model, batch)
        stepper.backward(loss)
        return loss.detach(), stepper.advance()

    return step


class _Before:
    """State that a step may change before the optimizer steps: gradients, buffers and global generators."""

    def __init__(self, model: Any, stepper: Stepper) -> None:
        buffers = model.buffers() if isinstance(model, torch.nn.Module) else ()
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]
        self._gradients = [
            (parameter, None if parameter.grad is None else parameter.grad.clone())
            for parameter in stepper.parameters()
        ]
        self._generator = torch.get_rng_state()
        self._others = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        for buffer, value in self._buffers:
            buffer.copy_(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        torch.set_rng_state(self._generator)
        if self._others:
            torch.cuda.set_rng_state_all(self._others)
