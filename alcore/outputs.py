"""What learners return, brought to one form.

A learner's attribute ``outputs`` says whether it returns ``"logits"`` (the default) or ``"probabilities"``.
Shapes: ``(B,)`` or ``(B, 1)`` for two classes, ``(B, C)`` for C classes, ``(K, B, C)`` or ``(K, B, 1)`` for K
samples of a posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

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
    if outputs.dim() == 1:
        outputs = outputs[:, None]
    if outputs.shape[-1] == 1:
        other = 1 - outputs if kind == "probabilities" else torch.sigmoid(-outputs)
        positive = outputs if kind == "probabilities" else torch.sigmoid(outputs)
        probabilities = torch.cat([other, positive], dim=-1)
    else:
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


def default_loss(task: str, kind: Kind) -> Callable[[Any, Any], torch.Tensor]:
    """Return the training step of a learner that has none of its own.

    Parameters
    ----------
    task
        ``"classification"``: binary cross-entropy for one output column, cross-entropy for more.
        ``"regression"``: mean squared error.
    kind
        ``"logits"`` or ``"probabilities"``, what a classifier returns.

    Returns
    -------
    callable
        ``step(model, (inputs, targets)) -> loss``, a scalar tensor.
    """
    if task == "regression":
        return _squared_error
    return _cross_entropy if kind == "logits" else _cross_entropy_of_probabilities


def _cross_entropy(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    if is_binary(outputs):
        flat = outputs.reshape(-1)
        return functional.binary_cross_entropy_with_logits(flat, targets.reshape(-1).to(flat.dtype))
    return functional.cross_entropy(outputs, targets.reshape(-1).long())


def _cross_entropy_of_probabilities(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    if is_binary(outputs):
        flat = outputs.reshape(-1)
        return functional.binary_cross_entropy(flat, targets.reshape(-1).to(flat.dtype))
    return functional.nll_loss(torch.log(outputs), targets.reshape(-1).long())


def _squared_error(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    return functional.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))
