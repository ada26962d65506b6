"""Gradients of a loss on a CPU, without the overhead of `torch.Tensor.backward`.

For a small model the overhead is a quarter of forward and backward together: checks for nested and symbolic shapes, and
a context for other threads, which a backward on a CPU doesn't use. Here torch's engine is called with the same
arguments, so that gradients are the same. A trial call shows whether the engine of this torch version can be used.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

_KINDS = (torch.float32, torch.float64)


def compute_gradients(loss: torch.Tensor) -> None:
    """Compute the same gradients as ``loss.backward()``."""
    run = _engine()
    if (
        run is None
        or type(loss) is not torch.Tensor
        or loss.dtype not in _KINDS
        or loss.dim()
        or not loss.is_cpu
        or torch.overrides.has_torch_function_unary(loss)  # also for active modes
    ):
        loss.backward()  # type: ignore[no-untyped-call]
        return
    run((loss,), (torch.ones((), dtype=loss.dtype, device="cpu"),), False, False, (), True, True)


@functools.cache
def _engine() -> Any:
    """Return the engine's method that computes gradients, or None if it doesn't work as expected."""
    run = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "run_backward", None)
    if run is None or logging.getLogger("torch.autograd.graph").getEffectiveLevel() <= logging.DEBUG:
        return None  # torch then logs each node of the graph
    weights = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    try:
        with torch.enable_grad():
            loss = (weights[0] * weights[1]).sum()
        run((loss,), (torch.ones(()),), False, False, (), True, True)
    except (TypeError, RuntimeError):
        return None
    same = all(
        weight.grad is not None and torch.equal(weight.grad, torch.tensor(expected))
        for weight, expected in zip(weights, ([3.0, 3.0], 3.0), strict=True)
    )
    return run if same else None
