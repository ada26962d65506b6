"""The training step: forward, backward and optimizer, eager, compiled, or replayed as a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore_torchloop import graphs
from alcore_torchloop.compiling import Compiler, compiled_step
from alcore_torchloop.graph_cache import Dependencies, Recorder, dependencies, logger, unreplaced_buffers
from alcore_torchloop.graphs import Graphs
from alcore_torchloop.precision import in_precision
from alcore_torchloop.stepping import Stepper

Step = Callable[..., tuple[torch.Tensor, bool]]

_WARMUP = 3  # eager batches of a shape before their graph is recorded


def step_for(
    loss_of: Callable[[Any, Any], torch.Tensor],
    stepper: Stepper,
    model: Any,
    device: torch.device | None,
    *,
    amp: str = "off",
    capture: bool = True,
    compiler: Compiler | None = None,
) -> Step:
    """Return the step of a training, which takes model and batch.

    Parameters
    ----------
    loss_of
        Called as ``loss_of(model, batch)``; returns the loss.
    stepper
        Computes gradients and steps the optimizer.
    model
        The learner.
    device
        Its device, if it is known.
    amp
        Precision of the computation.
    capture
        Compile the step if there is a `compiler`, else replay it from graphs on CUDA. Steps of several processes are
        eager, since their reduction of gradients can't be captured.
    compiler
        Keeps the compiled function between trainings.
    """
    eager = in_precision(loss_of, amp, device)
    if not capture or _world_size() > 1:
        return eager_step(eager, stepper)
    if compiler is not None:
        return compiled_step(compiler, in_precision(compiler.compiled(loss_of), amp, device), eager, stepper)
    source = graphs.graphs_for(device or graphs.device_of(model))
    return eager_step(eager, stepper) if source is None else graphed_step(eager, stepper, model, source, _WARMUP)


def eager_step(loss_of: Callable[..., torch.Tensor], stepper: Stepper) -> Step:
    """Return a step with the arguments of `loss_of`, which returns the loss and whether the optimizer was stepped."""
    begin, end = stepper.begin_batch, stepper.end_batch

    def step(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, bool]:
        begin()
        loss = loss_of(*args, **kwargs)
        stepped = end(loss)
        return loss.detach(), stepped

    return step


def graphed_step(
    loss_of: Callable[..., torch.Tensor],
    stepper: Stepper,
    model: Any,
    source: Graphs,
    warmup: int,
    warn: Callable[[str], None] = logger.warning,
) -> Step:
    """Return a step equivalent to that of `eager_step`, which replays graphs after a few calls.

    Parameters
    ----------
    loss_of
        Returns the loss of a batch.
    stepper
        Steps the optimizer: in the graph if the step runs on the device alone, else after each replay.
    model
        The learner, whose changes make graphs stale.
    source
        Makes the graphs.
    warmup
        Eager steps before a graph is recorded, each a step of the training.
    warn
        Called with the reason if the step can't be recorded.
    """
    return Recorder(source, eager_step(loss_of, stepper), *_Graphed(loss_of, stepper, model).parts(), warmup, warn)


class _Graphed:
    """The part of a training step that is recorded, and the part after a replay."""

    def __init__(self, loss_of: Callable[..., torch.Tensor], stepper: Stepper, model: Any) -> None:
        self._loss_of, self._stepper, self._model = loss_of, stepper, model
        self._inside = stepper.can_be_recorded()
        self._settings: list[Any] | None = None

    def parts(self) -> tuple[Callable[..., Any], Callable[[Any], Any], Callable[[], Dependencies]]:
        """Return the functions for a `Recorder`."""
        return self.record, self.finish, self.depends

    def depends(self) -> Dependencies:
        """Return what a graph depends on; with the optimizer in it, also the optimizer's settings and state."""
        on_model = dependencies(self._model)
        on_model.objects.extend(self._stepper.parameters())
        if not self._inside:
            return on_model
        objects, settings = self._stepper.constants()
        if self._settings is not None and settings != self._settings:
            self._inside = False  # for instance by a schedule, which would need a graph for each rate
        self._settings = settings
        return Dependencies([*on_model.objects, *objects], [*on_model.values, self._inside, *settings])

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Compute gradients, starting without any, so that they are at the place that each replay writes to."""
        trained = self._trained()
        before = [parameter.grad for parameter in trained]
        for parameter in trained:
            parameter.grad = None
        try:
            with unreplaced_buffers(self._model):
                loss = self._loss_of(*args, **kwargs)
                self._stepper.backward(loss)
                gradients = [parameter.grad for parameter in trained]
                if self._inside:
                    self._stepper.step()
            return loss.detach(), trained, gradients
        finally:
            for parameter, gradient in zip(trained, before, strict=True):
                parameter.grad = gradient

    def finish(self, result: Any) -> tuple[torch.Tensor, bool]:
        """Do the part that is not in the graph; the loss is copied, since the next replay overwrites it."""
        loss, trained, gradients = result
        if self._inside:
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            return loss.clone(), True
        self._stepper.begin_batch()
        self._stepper.take(trained, gradients)
        return loss.clone(), self._stepper.advance()

    def _trained(self) -> list[torch.nn.Parameter]:
        own = self._model.parameters() if isinstance(self._model, torch.nn.Module) else ()
        return [
            parameter for parameter in dict.fromkeys([*self._stepper.parameters(), *own]) if parameter.requires_grad
        ]


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
