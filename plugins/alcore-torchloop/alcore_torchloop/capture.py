"""Decorators that turn a loss function into a training step, or a function into an evaluation step.

They are for custom training loops. On CUDA such a step is captured as a graph and replayed; on a CPU it runs eagerly,
with the same results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from alcore.inference import evaluating
from alcore_torchloop import graphs
from alcore_torchloop.graph_cache import Recorder, copied, dependencies, unreplaced_buffers
from alcore_torchloop.stepping import Stepper
from alcore_torchloop.train_step import eager_step, graphed_step


class StaticCaptureTraining:
    """Make a training step from a function that returns the loss.

    Parameters
    ----------
    model
        The learner.
    optim
        Its optimizer, which the step zeroes and steps once.
    use_graphs
        Capture the step as a CUDA graph; no effect on a CPU.
    cuda_graph_warmup
        Eager steps before the capture, for each shape of batches.
    gradient_clip_norm
        Clip the norm of all gradients together to this before the optimizer steps.

    Examples
    --------
    >>> step = StaticCaptureTraining(model=model, optim=optimizer)(loss_of_batch)  # doctest: +SKIP
    >>> loss = step(model, batch)  # zero_grad, forward, backward and optimizer step  # doctest: +SKIP
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: torch.optim.Optimizer,
        use_graphs: bool = True,
        cuda_graph_warmup: int = 11,
        gradient_clip_norm: float | None = None,
    ) -> None:
        self.model, self.optim = model, optim
        self.use_graphs, self.cuda_graph_warmup = use_graphs, cuda_graph_warmup
        self.gradient_clip_norm = gradient_clip_norm

    def __call__(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return a step that calls `function`, computes gradients, steps the optimizer and returns the loss."""
        stepper = Stepper(self.optim, clip_norm=self.gradient_clip_norm, direct=False)
        source = graphs.graphs_for(graphs.device_of(self.model)) if self.use_graphs else None
        if source is None:
            whole = eager_step(function, stepper)
        else:
            whole = graphed_step(function, stepper, self.model, source, self.cuda_graph_warmup)

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> torch.Tensor:
            return whole(*args, **kwargs)[0]

        return step


class StaticCaptureEvaluateNoGrad:
    """Run a function in eval mode and without gradients.

    Parameters
    ----------
    model
        The learner; each submodule then gets its mode back.
    use_graphs
        Capture the step as a CUDA graph; no effect on a CPU.
    cuda_graph_warmup
        Eager calls before the capture, for each shape of arguments.
    """

    def __init__(self, model: torch.nn.Module, use_graphs: bool = True, cuda_graph_warmup: int = 11) -> None:
        self.model, self.use_graphs, self.cuda_graph_warmup = model, use_graphs, cuda_graph_warmup

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function equivalent to `function`, in eval mode and without gradients."""
        model, look = self.model, function
        source = graphs.graphs_for(graphs.device_of(model)) if self.use_graphs else None

        def recorded(*args: Any, **kwargs: Any) -> Any:
            with unreplaced_buffers(model):
                result = function(*args, **kwargs)
            copied(result)  # a result that can't be copied can't be replayed
            return result

        if source is not None:
            look = Recorder(source, function, recorded, copied, lambda: dependencies(model), self.cuda_graph_warmup)

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            with evaluating(model):
                return look(*args, **kwargs)

        return step
