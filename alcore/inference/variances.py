"""What a run's learner says of the variance of its predictions: outputs that have one, and their covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference.context import inference_context
from alcore.outputs.dropout import MCDropout, dropout_layers
from alcore.outputs.kinds import check_tensor, is_map, kind_of
from alcore.outputs.modes import evaluating
from alcore.pools.batches import rows_within, to_device
from alcore.protocols import RunContext

_ROWS, _BYTES = 4096, 2**22  # most samples, and bytes of their inputs, whose covariances are computed at a time


def predictive(context: RunContext, draws: int = 20, seed: int = 0) -> Callable[[Any], torch.Tensor]:
    """Return what maps a pool's inputs to outputs that have a variance, for `mean_and_variance`.

    Parameters
    ----------
    context
        The run.
    draws
        How many posterior samples MC dropout draws, where they are needed.
    seed
        Seed of their masks, which are the same for all inputs.

    Returns
    -------
    callable
        The learner's own outputs where they are posterior samples, or means and variances of a learner without dropout
        layers. Otherwise samples by MC dropout, (K, B, T) or (K, B, 2 T); those of fields have all their values in the
        last axis.

    Raises
    ------
    UsageError
        When it is called, for a learner that gives no variance.
    """
    dropout: list[MCDropout] = []

    def infer(inputs: Any) -> torch.Tensor:
        if not dropout:
            outputs = check_tensor(context.infer(inputs))
            has_layers = bool(dropout_layers(context.learner))
            if outputs.dim() == 3 or (not has_layers and kind_of(context.learner, "regression") == "mean-variance"):
                return outputs
            if not has_layers:
                raise _no_variance(context.learner, outputs)
            dropout.append(MCDropout(context.learner, draws, seed))
        return dropout[0](lambda: _rows(check_tensor(context.infer(inputs))))

    return infer


def _no_variance(learner: Any, outputs: torch.Tensor) -> UsageError:
    """Return the error about a learner whose predictions have no variance."""
    return UsageError(
        f"the learner {type(learner).__name__} predicts values of shape {tuple(outputs.shape)} without a variance. Let "
        "it predict one (--set learner.mlp.outputs=mean-variance), give it dropout (--set learner.mlp.dropout=0.1), or "
        "use an ensemble (--learner ensemble) or a Gaussian process (--learner gp, in alcore-gp)."
    )


def _rows(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.flatten(1) if is_map(outputs) else outputs


def has_covariance(learner: Any) -> bool:
    """Return whether a learner offers ``posterior_covariance``."""
    return callable(getattr(learner, "posterior_covariance", None))


def posterior_covariance(
    context: RunContext, a: torch.Tensor, b: torch.Tensor | None = None, *, pool: Any = None
) -> torch.Tensor:
    """Return the posterior covariance of a learner's predictions between samples, as the learner offers it.

    Parameters
    ----------
    context
        The run, whose learner has ``posterior_covariance`` (`alcore.protocols.LearnerOptions`).
    a
        Samples of the pool: int64 (A,).
    b
        Others, int64 (B,); without them the variances of `a` are returned.
    pool
        The pool of the samples; the pool to choose from if None.

    Returns
    -------
    torch.Tensor
        Float64, without the noise of labels: shape (T, A, B), or (T, A).
    """
    run = inference_context(context)
    pool, parts = run.choice_pool if pool is None else pool, []

    def placed(ids: torch.Tensor) -> Any:
        return to_device(pool.inputs(ids), run.device, run.dtype)

    others = () if b is None else (placed(b),)
    rows = min(_ROWS, rows_within(pool.inputs(a[:1]), _BYTES))
    with evaluating(run.learner):
        for part in torch.split(a, rows):
            run.safe_point()
            parts.append(run.learner.posterior_covariance(placed(part), *others))
    return torch.cat(parts, dim=1).double().cpu()
