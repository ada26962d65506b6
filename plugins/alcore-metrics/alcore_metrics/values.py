"""Bring the outputs and targets of a regression to one form, and refuse what can't be measured."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import AlcoreError, UsageError
from alcore.outputs import check_tensor, match_targets, means_of
from alcore.pools import is_choosable
from alcore.protocols import RunContext

_SHAPES = (
    "(B,) or (B, 1) for one quantity, (B, T) for T quantities, (B, C, H, W) for a field, (K, B, T) for K samples of a "
    "posterior"
)


def check_regression(context: RunContext) -> None:
    """Raise `UsageError` for data that is known to be a classification, and for outputs of no regression."""
    info = context.info
    if info is not None and info.task != "regression":
        raise UsageError(
            f"it is for regression, and the task of this data is {info.task}; use --metrology classification, or "
            "declare the data a regression (--set data.csv.task=regression, or alcore.DataInfo('regression') in "
            "Python)."
        )
    if is_choosable(context.choice_pool) and (outputs := context.probe()) is not None:
        check_values(outputs)


def check_values(outputs: Any) -> torch.Tensor:
    """Return outputs of a known shape, or raise `UsageError`."""
    tensor = check_tensor(outputs)
    if not tensor.dim() or not tensor.is_floating_point():
        raise UsageError(
            f"the learner returned a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; for regression it must "
            f"return {_SHAPES}."
        )
    return tensor


def check_finite(owner: str, predicted: torch.Tensor, true: torch.Tensor, before: int, on: str) -> None:
    """Raise an error if a target or a prediction is NaN or infinite.

    Parameters
    ----------
    owner
        Name of the strategy, for the message.
    predicted, true
        Shape (B, T).
    before
        Number of samples in earlier batches.
    on
        What is measured on.
    """
    if not bool(true.isfinite().all()):
        raise UsageError(f"{owner}: a target to measure on is NaN or infinite; leave it out.")
    refuse_bad_outputs(owner, ~predicted.isfinite().all(dim=1), before, on)


def refuse_bad_outputs(owner: str, bad: torch.Tensor, before: int, on: str) -> None:
    """Raise `AlcoreError` if the outputs for a sample are bad: bool, shape (B,), after `before` other samples."""
    if bool(bad.any()):
        raise AlcoreError(
            f"{owner}: the learner's outputs for {int(bad.sum())} of {len(bad)} samples are NaN or infinite, the first "
            f"of them at position {before + int(bad.nonzero()[0])} of what is measured on ({on}). The training has "
            "diverged, or an input is NaN; lower the learning rate (training.optimizer.lr), or look at the inputs."
        )


def posterior_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
    """Return samples of a posterior, or None if outputs are one prediction a sample; the targets tell which they are.

    Parameters
    ----------
    outputs
        As in `match`.
    targets
        Shape (B,), (B, T) or (B, ...).

    Returns
    -------
    torch.Tensor or None
        Float64, shape (K, B, T).
    """
    if outputs.dim() == 3 and targets.dim() <= 2:
        return outputs.double()
    if outputs.dim() == 3 and outputs.shape != targets.shape and outputs.shape[1:] == targets.flatten(1).shape:
        return outputs.double()
    is_posterior = outputs.dim() > 3 and outputs.shape[1:] == targets.shape and outputs.shape[0] > 1
    return outputs.flatten(2).double() if is_posterior else None


def match(outputs: torch.Tensor, targets: torch.Tensor, kind: str = "values") -> tuple[torch.Tensor, torch.Tensor]:
    """Return predicted and true quantities, both float64 of shape (B, T).

    Parameters
    ----------
    outputs
        One prediction a sample in the shape of the targets, or in one of those of `match_targets`; or K samples of a
        posterior, (K, B, T) or for fields (K, B, ...), whose mean is taken. Fields may have their values in one axis.
    targets
        Shape (B,), (B, T) or (B, ...).
    kind
        What the outputs are; of ``"mean-variance"`` the means are taken.

    Raises
    ------
    UsageError
        When these are not the same quantities.
    """
    outputs = means_of(check_values(outputs), kind)
    samples = posterior_of(outputs, targets)
    if samples is None:
        return columns(outputs), columns(match_targets(outputs, targets))
    predicted, true = samples.mean(dim=0), columns(targets)
    if predicted.shape != true.shape:
        raise UsageError(
            f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}. K samples of a "
            "posterior must have the shape (K, B, T), with T = 1 for one quantity."
        )
    return predicted, true


def columns(values: torch.Tensor) -> torch.Tensor:
    """Return one value a sample, shape (B,), or several, shape (B, T), as float64 of shape (B, T)."""
    return values[:, None].double() if values.dim() == 1 else values.flatten(1).double()
