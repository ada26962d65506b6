"""Bring the outputs and targets of a regression to one form: float64, one column for each quantity."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import QueryError, UsageError
from alcore.outputs import check_tensor, first_rows, kind_of, means_of
from alcore.pools import has_batch
from alcore.protocols import RunContext
from alcore.randomness import preserve_rng_state

SHAPES = (
    "(B,) or (B, 1) for one quantity, (B, T) for T quantities, (B, C, H, W) for a field, (K, B, T) for K samples of a "
    "posterior"
)


def check_values(outputs: Any) -> torch.Tensor:
    """Return outputs of a known shape, or raise `UsageError`."""
    tensor = check_tensor(outputs)
    if not tensor.dim() or not tensor.is_floating_point():
        raise UsageError(
            f"the learner returned a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; for regression it must "
            f"return {SHAPES}."
        )
    return tensor


def check_probe(context: RunContext) -> torch.Tensor | None:
    """Return the outputs for up to two candidates, or raise `UsageError` if samples are not where they must be."""
    outputs = context.probe()
    if outputs is None:
        return None
    rows = len(next(context.candidates(2)))
    values: torch.Tensor = first_rows(check_values(outputs), rows, rows)
    return values


def check_quantities(context: RunContext, outputs: torch.Tensor) -> None:
    """Raise `UsageError` if the learner predicts another number of quantities than the labeled targets have."""
    pool = context.train_datapool
    if pool is None or not len(pool):
        return
    with preserve_rng_state():  # a pool may augment what it returns
        item = pool.batch(torch.arange(1)) if has_batch(pool) else pool[0]
    if not (isinstance(item, tuple | list) and len(item) == 2):
        return
    kind = kind_of(context.learner, "regression")
    predicted, labeled = predictions(outputs, kind).shape[1], torch.as_tensor(item[1]).numel()
    if predicted != labeled:
        raise UsageError(
            f"the learner predicts {predicted} quantities a sample, and the targets have {labeled}; both must be the "
            "same."
        )


def predictions(outputs: torch.Tensor, kind: str = "values") -> torch.Tensor:
    """Return the predicted quantities: float64, shape (B, T), the mean over posterior samples.

    Parameters
    ----------
    outputs
        ``(B,)``, ``(B, T)``, ``(B, C, ...)`` of four axes or more, or ``(K, B, T)`` posterior samples. Two dimensions
        are never posterior samples: those of one quantity have the shape ``(K, B, 1)``.
    kind
        What the outputs are; of ``"mean-variance"`` the means are taken.
    """
    values = means_of(check_values(outputs), kind).double()
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
