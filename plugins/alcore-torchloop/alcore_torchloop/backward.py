"""Going backward from a loss on a CPU without what `torch.Tensor.backward` looks up on the way.

For a small model that is a quarter of forward and backward together: checks for nested and symbolic shapes, and the
context that it keeps for other threads, which a CPU's backward doesn't have. Here torch's engine is called with the
arguments that it would be called with, so that gradients are the same. Whether this torch has such an engine is tried
out.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

_KINDS = (torch.float32, torch.float64)


def go_backward(loss: torch.Tensor) -> None:
    """Do as ``loss.backward()`` does."""
    run = _engine()
    if (
        run is None
        or type(loss) is not torch.Tensor
        or loss.dtype not in _KINDS
        or loss.dim()
        or not loss.is_cpu
        or torch.overrides.has_torch_function_unary(loss)  # a mode that wants to know of it, too
    ):
        loss.backward()  # type: ignore[no-untyped-call]
        return
    run((loss,), (torch.ones((), dtype=loss.dtype, device="cpu"),), False, False, (), True, True)


@functools.cache
def _engine() -> Any:
    """Return what runs a backward, or None where it doesn't do what it should."""
    run = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "run_backward", None)
    if run is None or logging.getLogger("torch.autograd.graph").getEffectiveLevel() <= logging.DEBUG:
        return None  # torch tells of each node of the graph then
    weights = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    try:
        with torch.enable_grad():
            loss = (weights[0] * weights[1]).sum()
        run((loss,), (torch.ones(()),), False, False, (), True, True)
    except (TypeError, RuntimeError):
        return None
    same = all(
        one.grad is not None and torch.equal(one.grad, torch.tensor(expected))
        for one, expected in zip(weights, ([3.0, 3.0], 3.0), strict=True)
    )
    return run if same else None
