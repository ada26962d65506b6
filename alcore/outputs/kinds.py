"""Bring what learners return to one form.

A classifier's attribute ``outputs`` says whether it returns ``"logits"`` (the default) or ``"probabilities"``. Shapes:
``(B,)`` or ``(B, 1)`` for two classes, ``(B, C)`` for C classes, ``(K, B, C)`` or ``(K, B, 1)`` for K samples of a
posterior; ``(B, C, ...)`` or ``(B, 1, ...)`` of four or more axes for a map, with one prediction for each position.
Those of a regression are in `alcore.outputs.mean_variance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from alcore.errors import UsageError
from alcore.pools.batches import tensors_of

Kind = str
"""What outputs are: ``"logits"`` or ``"probabilities"`` of a classifier, ``"values"`` or ``"mean-variance"`` else."""

_SHORT = 64  # torch's softmax over a last axis of up to this length is several times slower than over a first axis
_REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda scores: scores.mean(dim=1),
    "max": lambda scores: scores.amax(dim=1),
    "sum": lambda scores: scores.sum(dim=1),
}


def kind_of(learner: Any, task: str = "classification") -> Kind:
    """Return what the learner's outputs are, as it says.

    Parameters
    ----------
    learner
        Any learner.
    task
        ``"classification"`` or ``"regression"``.

    Returns
    -------
    str
        ``"logits"`` or ``"probabilities"`` of a classification; ``"values"`` or ``"mean-variance"`` of a regression.

    Raises
    ------
    UsageError
        For anything else that it says, and for means and variances of a classification.
    """
    kind = getattr(learner, "outputs", "logits")
    if kind not in ("logits", "probabilities", "values", "mean-variance"):
        raise UsageError(
            f"{type(learner).__name__}.outputs is {kind!r}; it must be 'logits' or 'probabilities', and for a "
            "regression 'values' or 'mean-variance'."
        )
    if task == "regression":
        return "mean-variance" if kind == "mean-variance" else "values"
    if kind in ("values", "mean-variance"):
        raise UsageError(
            f"{type(learner).__name__}.outputs is {kind!r}, which is for a regression; a classifier returns 'logits' "
            "or 'probabilities'."
        )
    return str(kind)


def is_binary(outputs: torch.Tensor) -> bool:
    """Return whether outputs have one column for two classes."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


def check_tensor(outputs: Any) -> torch.Tensor:
    """Return outputs that are a tensor, or raise `UsageError`."""
    if not isinstance(outputs, torch.Tensor):
        raise UsageError(
            f"the learner returned a {type(outputs).__name__}, not a tensor; give the Driver an "
            "inference_fn(learner, inputs) that returns one."
        )
    return outputs


def check_outputs(outputs: Any) -> torch.Tensor:
    """Return classifier outputs of a known shape, or raise `UsageError`."""
    tensor = check_tensor(outputs)
    if not 1 <= tensor.dim() <= 3 or not tensor.is_floating_point():
        raise UsageError(
            f"the learner returned a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; a classifier "
            "returns (B,) or (B, 1) binary logits, (B, C) class logits, or (K, B, C) posterior samples."
        )
    return tensor


def binary_logits(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the logits of the positive class: shape (B,), from ``(B,)`` or ``(B, 1)``."""
    flat = outputs.reshape(outputs.shape[0])
    return flat if kind == "logits" else torch.logit(flat)


def class_probabilities(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return probabilities: shape (B, C) with C of at least 2, the mean over posterior samples.

    Parameters
    ----------
    outputs
        One of the shapes that the docstring of this module lists.
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
        probabilities = outputs if kind == "probabilities" else _softmax(outputs)
    return probabilities.mean(dim=0) if outputs.dim() == 3 else probabilities


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    if logits.shape[-1] > _SHORT or logits.device.type != "cpu":
        return torch.softmax(logits, dim=-1)
    classes_first = logits.reshape(-1, logits.shape[-1]).t().contiguous()
    return torch.softmax(classes_first, dim=0).t().contiguous().reshape(logits.shape)


def is_map(outputs: Any) -> bool:
    """Return whether outputs have one prediction a position: four axes or more."""
    return isinstance(outputs, torch.Tensor) and outputs.dim() > 3


def by_position(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return a map with each position as a sample: ``(B, C, ...)`` as (B * positions, C).

    One column for two classes becomes two, so that measures of positions are computed from probabilities.
    """
    if not outputs.is_floating_point():
        raise UsageError(f"the learner returned a map of {outputs.dtype}; a classifier returns floating-point logits.")
    flat = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
    if outputs.shape[1] > 1:
        return flat
    other = 1 - flat if kind == "probabilities" else torch.zeros_like(flat)
    return torch.cat([other, flat], dim=1)


def reduce_map(scores: torch.Tensor, reduce: str = "mean") -> torch.Tensor:
    """Return one score for each sample from the scores of its positions.

    Parameters
    ----------
    scores
        Shape (B, ...).
    reduce
        ``"mean"``, ``"max"`` or ``"sum"`` over the positions.

    Returns
    -------
    torch.Tensor
        Shape (B,).
    """
    if reduce not in _REDUCTIONS:
        raise UsageError(f"reduce is {reduce!r}; it must be one of {', '.join(_REDUCTIONS)}.")
    return _REDUCTIONS[reduce](scores.flatten(1))


def predicted_classes(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return the most likely class of each sample: int64, shape (B,); a binary tie is the positive class."""
    outputs = check_outputs(outputs)
    if is_binary(outputs):
        return (outputs.reshape(outputs.shape[0]) >= (0.0 if kind == "logits" else 0.5)).long()
    if outputs.dim() == 3:
        outputs = class_probabilities(outputs, kind)
    return outputs.argmax(dim=-1)


def first_rows(outputs: Any, n: int, rows: int) -> Any:
    """Return the outputs of the first `n` of `rows` samples."""
    for tensor in tensors_of(outputs):
        if not tensor.dim() or tensor.shape[tensor.dim() == 3] != rows:
            field = tensor.dim() == 3 and tensor.shape[0] == rows
            raise UsageError(
                f"the learner returned a tensor of shape {tuple(tensor.shape)} for {rows} samples; samples must be on "
                "the first axis, or for posterior samples (K, B, C) on the second. "
                + ("For a field of two axes, add one of channels: (B, 1, H, W). " if field else "")
                + "Give the Driver an inference_fn(learner, inputs) that returns such a tensor."
            )
    return outputs if n == rows else take_rows(outputs, slice(n))


def take_rows(outputs: Any, rows: slice | torch.Tensor) -> Any:
    """Return the outputs of some samples, from nested tensors; a tensor of three axes has its samples on the second."""
    if isinstance(outputs, torch.Tensor):
        return outputs[:, rows] if outputs.dim() == 3 else outputs[rows]
    if isinstance(outputs, Mapping):
        return {key: take_rows(value, rows) for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        return tuple(take_rows(part, rows) for part in outputs)
    return outputs


def match_targets(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the targets of a regression in the shape of the predictions.

    Parameters
    ----------
    outputs
        One prediction a sample: shape (B, ...). It may have more or fewer axes of length 1 than the targets, and the
        values of a sample may be in one axis, in the order of memory.
    targets
        Shape (B, ...).

    Raises
    ------
    UsageError
        When these are not the same quantities.
    """
    if outputs.shape == targets.shape:
        return targets
    if outputs.numel() == targets.numel() and (not outputs.dim() or outputs.shape[0] == targets.shape[0]):
        own, wanted = ([n for n in tensor.shape[1:] if n != 1] for tensor in (outputs, targets))
        if own == wanted or len(own) <= 1 or len(wanted) <= 1:
            return targets.reshape(outputs.shape)
    raise UsageError(
        f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}: a regression needs one "
        "value for each quantity of a sample, in the shape of the targets. K samples of a posterior have the shape "
        "(K, B, T), with T = 1 for one quantity, and a learner that returns them needs a training_step of its own."
    )


def halves(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and variances of outputs of the kind ``"mean-variance"``: its columns or channels in two halves.

    Parameters
    ----------
    outputs
        Shape (B, 2 T), (K, B, 2 T) or (B, 2 C, ...).

    Raises
    ------
    UsageError
        For another shape.
    """
    tensor = check_tensor(outputs)
    axis = 2 if tensor.dim() == 3 else 1
    if tensor.dim() < 2 or tensor.shape[axis] % 2 or not tensor.shape[axis] or not tensor.is_floating_point():
        raise UsageError(
            f"the learner returned a {tensor.dtype} tensor of shape {tuple(tensor.shape)}, and its outputs are "
            "'mean-variance': means and then variances, of shape (B, 2 T) for T quantities, (K, B, 2 T) for K samples "
            "of a posterior, (B, 2 C, H, W) for a field of C channels."
        )
    mean, variance = tensor.chunk(2, dim=axis)
    return mean, variance


def means_of(outputs: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return outputs of a regression without their variances: those of a learner that predicts values alone as such."""
    return halves(outputs)[0] if kind == "mean-variance" else outputs


def default_loss(task: str, kind: Kind, class_weights: Sequence[float] = ()) -> Callable[[Any, Any], torch.Tensor]:
    """Return the training step for a learner without a ``training_step``.

    Parameters
    ----------
    task
        ``"classification"``: binary cross-entropy for one output column, cross-entropy for more.
        ``"regression"``: mean squared error over all quantities, see `match_targets`.
    kind
        What the learner returns, see `kind_of`; ``"mean-variance"`` has the mean of `gaussian_nll`.
    class_weights
        Weight of a sample of each class in the mean; empty for equal weights.

    Returns
    -------
    callable
        ``step(model, (inputs, targets)) -> loss``, a scalar tensor.
    """
    if task == "regression":
        return _gaussian if kind == "mean-variance" else _squared_error
    if len(class_weights):
        return _Weighted(kind, class_weights)
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


class _Weighted:
    """Cross-entropy weighted by class: the sum of weight times loss, divided by the sum of weights."""

    def __init__(self, kind: Kind, weights: Sequence[float]) -> None:
        self._kind, self._weights = kind, torch.tensor(weights, dtype=torch.float64)

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        outputs = model(inputs)
        if self._weights.device != outputs.device or self._weights.dtype != outputs.dtype:
            self._weights = self._weights.to(outputs.device, outputs.dtype)
        if is_binary(outputs):
            flat = outputs.reshape(-1)
            targets = targets.reshape(-1).to(flat.dtype)
            loss = (
                functional.binary_cross_entropy_with_logits
                if self._kind == "logits"
                else functional.binary_cross_entropy
            )
            weight = torch.lerp(self._weights[0], self._weights[1], targets)
            return (loss(flat, targets, reduction="none") * weight).sum() / weight.sum()
        if self._kind != "logits":
            return functional.nll_loss(torch.log(outputs), targets.reshape(-1).long(), self._weights)
        return functional.cross_entropy(outputs, targets.reshape(-1).long(), self._weights)


def _squared_error(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    outputs = model(inputs)
    return functional.mse_loss(outputs, match_targets(outputs, targets).to(outputs.dtype))


def gaussian_nll(mean: torch.Tensor, variance: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of normal distributions without its constant, elementwise.

    ``(log v + (y - m)^2 / v) / 2``. Unlike `torch.nn.functional.gaussian_nll_loss` it does not wait for a GPU.

    Parameters
    ----------
    mean, variance, targets
        Of one shape; variances above 0.

    References
    ----------
    Nix and Weigend (1994), Estimating the mean and variance of the target probability distribution, ICNN.
    """
    return (variance.log() + (targets - mean).square() / variance) / 2


def _gaussian(model: Any, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    mean, variance = halves(model(inputs))
    return gaussian_nll(mean, variance, match_targets(mean, targets).to(mean.dtype)).mean()
