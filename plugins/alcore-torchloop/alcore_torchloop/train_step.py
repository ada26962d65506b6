"""The whole of a training step: forward, backward, and the optimizer; as it is, or replayed as a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore_torchloop import graphs
from alcore_torchloop.compiling import Compiler, compiled_step
from alcore_torchloop.graph_cache import Dependencies, Recorder, dependencies, unreplaced_buffers
from alcore_torchloop.graphs import Graphs
from alcore_torchloop.precision import in_precision
from alcore_torchloop.stepping import Stepper

Step = Callable[..., tuple[torch.Tensor, bool]]

_WARMUP = 3  # batches of a shape that run as they are before their graph is recorded


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
        Goes backward and steps the optimizer.
    model
        The learner.
    device
        Where it is, if that is known.
    amp
        The precision that it computes in.
    capture
        Compile the step where there is a `compiler`, else replay it from graphs on CUDA. Several processes reduce
        gradients in ways that are not captured, so that their steps run as they are.
    compiler
        Keeps what is compiled from one training to the next.
    """
    eager = in_precision(loss_of, amp, device)
    if not capture or _world_size() > 1:
        return eager_step(eager, stepper)
    if compiler is not None:
        return compiled_step(compiler, in_precision(compiler.compiled(loss_of), amp, device), eager, stepper)
    source = graphs.graphs_for(device or graphs.device_of(model))
    return eager_step(eager, stepper) if source is None else graphed_step(eager, stepper, model, source, _WARMUP)


def eager_step(loss_of: Callable[..., torch.Tensor], stepper: Stepper) -> Step:
    """Return a step that takes what `loss_of` takes, and returns the loss and whether the optimizer was stepped."""
    begin, end = stepper.begin_batch, stepper.end_batch

    def step(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, bool]:
        begin()
        loss = loss_of(*args, **kwargs)
        stepped = end(loss)
        return loss.detach(), stepped

    return step


def graphed_step(
    loss_of: Callable[..., torch.Tensor], stepper: Stepper, model: Any, source: Graphs, warmup: int
) -> Step:
    """Return a step that does as `eager_step`'s does, by replaying graphs after a few calls.

    Parameters
    ----------
    loss_of
        Returns the loss of a batch.
    stepper
        Steps the optimizer: within the graph where nothing of the step happens on the host, else after each replay.
    model
        The learner, whose changes make graphs stale.
    source
        Where graphs come from.
    warmup
        Calls that run as they are before a graph is recorded, each of them a step of the training.
    """
    return Recorder(source, eager_step(loss_of, stepper), *_Graphed(loss_of, stepper, model).parts(), warmup)


class _Graphed:
    """What of a training step is recorded, and what is done after a replay."""

    def __init__(self, loss_of: Callable[..., torch.Tensor], stepper: Stepper, model: Any) -> None:
        self._loss_of, self._stepper, self._model = loss_of, stepper, model
        self._inside = stepper.can_be_recorded()
        self._settings: list[Any] | None = None

    def parts(self) -> tuple[Callable[..., Any], Callable[[Any], Any], Callable[[], Dependencies]]:
        """Return what a `Recorder` takes."""
        return self.record, self.finish, self.depends

    def depends(self) -> Dependencies:
        """Return what a graph depends on; an optimizer inside it brings its settings and its state."""
        found = dependencies(self._model)
        found.objects.extend(self._stepper.parameters())
        if not self._inside:
            return found
        objects, settings = self._stepper.constants()
        if self._settings is not None and settings != self._settings:
            self._inside = False  # a schedule, say, which would make a new graph for each rate
        self._settings = settings
        return Dependencies([*found.objects, *objects], [*found.values, self._inside, *settings])

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Go backward from no gradients, so that they come to lie where each replay will write them."""
        trained = self._trained()
        before = [one.grad for one in trained]
        for one in trained:
            one.grad = None
        try:
            with unreplaced_buffers(self._model):
                loss = self._loss_of(*args, **kwargs)
                self._stepper.backward(loss)
                gradients = [one.grad for one in trained]
                if self._inside:
                    self._stepper.step()
            return loss.detach(), trained, gradients
        finally:
            for one, gradient in zip(trained, before, strict=True):
                one.grad = gradient

    def finish(self, result: Any) -> tuple[torch.Tensor, bool]:
        """Do what is not in the graph; the loss is a copy, since the next replay overwrites it."""
        loss, trained, gradients = result
        if self._inside:
            for one, gradient in zip(trained, gradients, strict=True):
                one.grad = gradient
            return loss.clone(), True
        self._stepper.begin_batch()
        self._stepper.take(trained, gradients)
        return loss.clone(), self._stepper.advance()

    def _trained(self) -> list[torch.nn.Parameter]:
        own = self._model.parameters() if isinstance(self._model, torch.nn.Module) else ()
        return [one for one in dict.fromkeys([*self._stepper.parameters(), *own]) if one.requires_grad]


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
