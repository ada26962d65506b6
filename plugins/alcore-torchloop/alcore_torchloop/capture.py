"""Decorators that turn a loss function into a whole training step, or a function into an evaluation step.

They are for custom training loops. On CUDA such a step can be captured as a graph and replayed; on a CPU there
is nothing to capture. This version runs every step eagerly, on any device, with the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from alcore.placement import evaluating


class StaticCaptureTraining:
    """Make a training step out of a function that returns the loss.

    Parameters
    ----------
    model
        The learner.
    optim
        Its optimizer, which the step zeroes and steps once.
    use_graphs
        Capture the step as a CUDA graph; nothing to do on a CPU.
    cuda_graph_warmup
        Steps that run eagerly before the capture.
    gradient_clip_norm
        Clip the norm of all gradients to this before the optimizer steps.

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
        """Return a step that calls `function`, goes backward, steps the optimizer and returns the loss, detached."""

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> torch.Tensor:
            self.optim.zero_grad(set_to_none=True)
            loss = function(*args, **kwargs)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.gradient_clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_clip_norm)
            self.optim.step()
            return loss.detach()

        return step


class StaticCaptureEvaluateNoGrad:
    """Run a function in eval mode and without gradients.

    Parameters
    ----------
    model
        The learner; each of its parts has its mode back afterwards.
    use_graphs
        Capture the step as a CUDA graph; nothing to do on a CPU.
    cuda_graph_warmup
        Calls that run eagerly before the capture.
    """

    def __init__(self, model: torch.nn.Module, use_graphs: bool = True, cuda_graph_warmup: int = 11) -> None:
        self.model, self.use_graphs, self.cuda_graph_warmup = model, use_graphs, cuda_graph_warmup

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does as `function` does, in eval mode and without gradients."""

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            with evaluating(self.model):
                return function(*args, **kwargs)

        return step
