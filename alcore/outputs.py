"""What learners return, brought to one form.

A learner's attribute ``outputs`` says whether it returns ``"logits"`` (the default) or ``"probabilities"``.
Shapes: ``(B,)`` or ``(B, 1)`` for two classes, ``(B, C)`` for C classes, ``(K, B, C)`` for K samples of a
posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError

Kind = str


def kind_of(learner: Any) -> Kind:
    """Return ``"logits"`` or ``"probabilities"``, as the learner says."""
    kind = getattr(learner, "outputs", "logits")
    if kind not in ("logits", "probabilities"):
        raise UsageError(f"{type(learner).__name__}.outputs is {kind!r}; it must be 'logits' or 'probabilities'.")
    return str(kind)


def is_binary(outputs: torch.Tensor) -> bool:
    """Tell whether outputs have one column for two classes."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


def check_outputs(outputs: Any) -> torch.Tensor:
    """Return classifier outputs of a known shape, or raise `UsageError`."""
    if not isinstance(outputs, torch.Tensor):
        raise UsageError(
            f"the learner returned a {type(outputs).__name__}, not a tensor; give the Driver an "
            "inference_fn(learner, inputs) that returns one."
        )
    if not 1 <= outputs.dim() <= 3 or not outputs.is_floating_point():
        raise UsageError(
            f"the learner returned a {outputs.dtype} tensor of shape {tuple(outputs.shape)}; a classifier "
            "returns (B,) or (B, 1) binary logits, (B, C) class logits, or (K, B, C) posterior samples."
        )
    return outputs


def binary_logits(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the logits of the positive class: shape (B,), from ``(B,)`` or ``(B, 1)``."""
    flat = outputs.reshape(outputs.shape[0])
    return flat if kind == "logits" else torch.logit(flat)


def class_probabilities(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return probabilities: shape (B, C) with C of at least 2, the mean over posterior samples.

    Parameters
    ----------
    outputs
        One of the shapes named in this module's page.
    kind
        ``"logits"`` or ``"probabilities"``.
    """
    outputs = check_outputs(outputs)
    if is_binary(outputs):
        positive = outputs.reshape(outputs.shape[0])
        if kind == "probabilities":
            return torch.stack([1 - positive, positive], dim=1)
        return torch.stack([torch.sigmoid(-positive), torch.sigmoid(positive)], dim=1)
    probabilities = outputs if kind == "probabilities" else torch.softmax(outputs, dim=-1)
    return probabilities.mean(dim=0) if outputs.dim() == 3 else probabilities


def predicted_classes(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the most likely class of each sample: int64, shape (B,); a binary tie is the positive class."""
    outputs = check_outputs(outputs)
    if is_binary(outputs):
        return (outputs.reshape(outputs.shape[0]) >= (0.0 if kind == "logits" else 0.5)).long()
    if outputs.dim() == 3:
        outputs = class_probabilities(outputs, kind)
    return outputs.argmax(dim=-1)


def default_loss(task: str) -> Callable[[Any, Any], torch.Tensor]:
    """Return the training step of a learner that has none of its own.

    Parameters
    ----------
    task
        ``"classification"``: binary cross-entropy with logits for one output column, cross-entropy for more.
        ``"regression"``: mean squared error.

    Returns
    -------
    callable
        ``step(model, (inputs, targets)) -> loss``, a scalar tensor.
    """
    return _regression_step if task == "regression" else _classification_step


def _classification_step(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    if is_binary(outputs):
        outputs = outputs.reshape(-1)
        targets = targets.reshape(-1).to(outputs.dtype)
        if kind_of(model) == "probabilities":
            return torch.nn.functional.binary_cross_entropy(outputs, targets)
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    if kind_of(model) == "probabilities":
        return torch.nn.functional.nll_loss(torch.log(outputs), targets.reshape(-1).long())
    return torch.nn.functional.cross_entropy(outputs, targets.reshape(-1).long())


def _regression_step(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    return torch.nn.functional.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))
