"""Bring the outputs and targets of a regression to one form: float64, one column for each quantity."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import QueryError, UsageError
from alcore.inference import check_tensor

SHAPES = "(B,) or (B, 1) for one quantity, (B, T) for T quantities, (K, B, T) for K samples of a posterior"


def check_values(outputs: Any) -> torch.Tensor:
    """Return outputs of a known shape, or raise `UsageError`."""
    tensor = check_tensor(outputs)
    if not 1 <= tensor.dim() <= 3 or not tensor.is_floating_point():
        raise UsageError(
            f"the learner returned a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; for regression it must "
            f"return {SHAPES}."
        )
    return tensor


def predictions(outputs: torch.Tensor) -> torch.Tensor:
    """Return the predicted quantities: float64, shape (B, T), the mean over posterior samples.

    Parameters
    ----------
    outputs
        ``(B,)``, ``(B, T)``, or ``(K, B, T)`` posterior samples. Two dimensions are never posterior samples: those
        of one quantity have the shape ``(K, B, 1)``.
    """
    values = check_values(outputs).double()
    return values.mean(dim=0) if values.dim() == 3 else columns(values)


def columns(values: torch.Tensor) -> torch.Tensor:
    """Return one value a sample, shape (B,), or several, shape (B, T), as float64 of shape (B, T)."""
    return values[:, None].double() if values.dim() == 1 else values.flatten(1).double()


def check_regression(task: str | None) -> None:
    """Raise `UsageError` for data that is known to be a classification."""
    if task not in (None, "regression"):
        raise UsageError(
            f"it is for regression, and the task of this data is {task}; use a query strategy or metrology for "
            "classification, or declare the data a regression (--set data.csv.task=regression, or "
            "alcore.DataInfo('regression') in Python)."
        )


def check_finite(values: torch.Tensor, ids: torch.Tensor, what: str) -> None:
    """Raise `QueryError` if values are NaN or infinite; the message names the samples.

    Parameters
    ----------
    values
        Shape (N, D).
    ids
        Sample ids: int64 (N,), -1 where unknown.
    what
        Name of the values, for the message.

    Raises
    ------
    QueryError
        If a value is NaN or infinite.
    """
    bad = ~values.sum(dim=1, dtype=torch.float64).isfinite()
    if bool(bad.any()):
        places = torch.nonzero(bad).flatten()[:5].tolist()
        named = ", ".join(str(int(ids[i])) if ids[i] >= 0 else f"number {i} in training order" for i in places)
        raise QueryError(
            f"{what} of sample {named} {'are' if what.endswith('s') else 'is'} NaN or infinite, so samples can't be "
            "ranked; look at the inputs, or at the learner's outputs for them."
        )
