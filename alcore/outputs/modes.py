"""The modes of a learner while its outputs are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def evaluating(learner: Any) -> Iterator[None]:
    """Run a block with a module in eval mode and without gradients; each submodule then gets its mode back."""
    with eval_mode(learner), torch.no_grad():
        yield


@contextlib.contextmanager
def eval_mode(learner: Any) -> Iterator[None]:
    """Run a block with a module in eval mode; each submodule then gets its mode back."""
    modules = learner.modules() if isinstance(learner, torch.nn.Module) else ()
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
