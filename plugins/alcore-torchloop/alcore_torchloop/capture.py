"""Decorators that turn a loss function into a training step, or a function into an evaluation step.

They are for custom training loops. On CUDA such a step is captured as a graph and replayed; on a CPU it runs eagerly,
with the same results.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.outputs import evaluating
from alcore_torchloop import graphs
from alcore_torchloop.graph_cache import Recorder, copied, dependencies, unreplaced_buffers
from alcore_torchloop.graph_cache import logger as default_logger
from alcore_torchloop.precision import PRECISIONS, in_precision, scaler_for
from alcore_torchloop.stepping import Stepper
from alcore_torchloop.train_step import eager_step, graphed_step


class _Settings:
    """What training and evaluation steps have in common: precision, compiling, graphs, and where warnings go."""

    def __init__(
        self,
        model: torch.nn.Module,
        use_graphs: bool,
        cuda_graph_warmup: int,
        use_amp: bool,
        amp_type: torch.dtype,
        compiles: bool,
        logger: logging.Logger | None,
        label: str | None,
    ) -> None:
        names = {dtype: name for name, dtype in PRECISIONS.items()}
        if amp_type not in names:
            raise UsageError(f"amp_type is {amp_type!r}; it must be torch.float16 or torch.bfloat16.")
        if isinstance(cuda_graph_warmup, bool) or not isinstance(cuda_graph_warmup, int) or cuda_graph_warmup < 0:
            raise UsageError(f"cuda_graph_warmup is {cuda_graph_warmup!r}; it must be an integer of at least 0.")
        if logger is not None and not callable(getattr(logger, "warning", None)):
            raise UsageError(
                f"logger is {logger!r}, a {type(logger).__name__} without a method warning; give a logging.Logger, or "
                "None. The logger comes before use_graphs, as in PhysicsNeMo; name the arguments: use_graphs=..."
            )
        for name, flag in (("use_graphs", use_graphs), ("use_amp", use_amp), ("compile", compiles)):
            if not isinstance(flag, bool):
                raise UsageError(f"{name} is {flag!r}; it must be True or False.")
        self.amp = names[amp_type] if use_amp else "off"
        self.device = graphs.device_of(model)
        self._use_graphs, self._compiles = use_graphs, compiles
        self._logger, self._label = logger or default_logger, label

    def prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is compiled, and computes in the precision, where that is wanted."""
        compiled = torch.compile(function) if self._compiles else function
        step: Callable[..., Any] = in_precision(compiled, self.amp, self.device)
        return step

    def graphs(self) -> Any:
        """Return what makes graphs, or None where steps are not captured."""
        return graphs.graphs_for(self.device) if self._use_graphs and not self._compiles else None

    def warn(self, message: str) -> None:
        """Warn of a step that can't be captured."""
        self._logger.warning("%s%s", f"{self._label}: " if self._label else "", message)


class StaticCaptureTraining:
    """Make a training step from a function that returns the loss.

    Parameters
    ----------
    model
        The learner.
    optim
        Its optimizer, which the step zeroes and steps once.
    logger
        Where a warning goes if the step can't be captured; by default the logger ``alcore.torchloop``.
    use_graphs
        Capture the step as a CUDA graph; no effect on a CPU.
    use_amp
        Compute in mixed precision.
    compile
        Compile the function by `torch.compile`, on any device, instead of capturing a graph; what `torch.compile`
        raises is raised.
    cuda_graph_warmup
        Eager steps before the capture, for each shape of batches.
    amp_type
        Type of mixed precision: ``torch.float16``, whose losses are scaled, or ``torch.bfloat16``.
    gradient_clip_norm
        Clip the norm of all gradients together to this before the optimizer steps.
    label
        Names the step in that warning.

    Raises
    ------
    UsageError
        If an argument is of another type, for instance since positional arguments are in another order.

    Examples
    --------
    >>> step = StaticCaptureTraining(model=model, optim=optimizer)(loss_of_batch)  # doctest: +SKIP
    >>> loss = step(model, batch)  # zero_grad, forward, backward and optimizer step  # doctest: +SKIP
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: torch.optim.Optimizer,
        logger: logging.Logger | None = None,
        use_graphs: bool = True,
        use_amp: bool = False,
        compile: bool = False,
        cuda_graph_warmup: int = 11,
        amp_type: torch.dtype = torch.float16,
        gradient_clip_norm: float | None = None,
        label: str | None = None,
    ) -> None:
        self.model, self.optim = model, optim
        self.gradient_clip_norm = gradient_clip_norm
        self._settings = _Settings(model, use_graphs, cuda_graph_warmup, use_amp, amp_type, compile, logger, label)
        self.use_graphs, self.cuda_graph_warmup = use_graphs, cuda_graph_warmup

    def __call__(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return a step that calls `function`, computes gradients, steps the optimizer and returns the loss."""
        settings = self._settings
        scaler = scaler_for(settings.amp, settings.device)
        stepper = Stepper(self.optim, clip_norm=self.gradient_clip_norm, scaler=scaler, direct=False)
        source, loss_of = settings.graphs(), settings.prepared(function)
        if source is None:
            whole = eager_step(loss_of, stepper)
        else:
            whole = graphed_step(loss_of, stepper, self.model, source, self.cuda_graph_warmup, settings.warn)

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
    logger, use_amp, compile, amp_type, label
        As in `StaticCaptureTraining`.
    use_graphs
        Capture the step as a CUDA graph; no effect on a CPU.
    cuda_graph_warmup
        Eager calls before the capture, for each shape of arguments.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        logger: logging.Logger | None = None,
        use_graphs: bool = True,
        use_amp: bool = False,
        compile: bool = False,
        cuda_graph_warmup: int = 11,
        amp_type: torch.dtype = torch.float16,
        label: str | None = None,
    ) -> None:
        self.model, self.use_graphs, self.cuda_graph_warmup = model, use_graphs, cuda_graph_warmup
        self._settings = _Settings(model, use_graphs, cuda_graph_warmup, use_amp, amp_type, compile, logger, label)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function equivalent to `function`, in eval mode and without gradients."""
        model, settings = self.model, self._settings
        prepared = look = settings.prepared(function)
        source = settings.graphs()

        def recorded(*args: Any, **kwargs: Any) -> Any:
            with unreplaced_buffers(model):
                result = prepared(*args, **kwargs)
            copied(result)  # a result that can't be copied can't be replayed
            return result

        if source is not None:
            look = Recorder(
                source, prepared, recorded, copied, lambda: dependencies(model), self.cuda_graph_warmup, settings.warn
            )

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            with evaluating(model):
                return look(*args, **kwargs)

        return step
