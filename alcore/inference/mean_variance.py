"""Mean and variance of predictions: of a learner that predicts both, of posterior samples, and of MC dropout.

A learner of a regression whose attribute ``outputs`` is ``"mean-variance"`` returns twice as many columns, or channels,
as there are quantities: first the predicted means, then the variances of a label around them, in the unit of the target
squared. So the shapes are ``(B, 2 T)`` for T quantities, ``(K, B, 2 T)`` for K samples of a posterior, such as the
members of an ensemble, and ``(B, 2 C, ...)`` of four axes or more for a field of C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from alcore.errors import UsageError
from alcore.inference.context import inference_context
from alcore.inference.dropout import MCDropout, dropout_layers
from alcore.inference.learner import evaluating
from alcore.inference.outputs import Kind, check_tensor, halves, is_map, kind_of
from alcore.pools.batches import rows_within, to_device
from alcore.protocols import RunContext

_ROWS, _BYTES = 4096, 2**22  # most samples, and bytes of their inputs, whose covariances are computed at a time


class MeanVariance(NamedTuple):
    """Mean and variance of predictions, float64 of one shape: (B, T), or (B, C, ...) for fields.

    Parameters
    ----------
    mean
        The predicted values; of posterior samples their mean.
    model
        Variance between posterior samples, which more labels reduce; None without such samples.
    noise
        Variance of a label around the prediction, as the learner predicts it; of posterior samples the mean of theirs;
        None where the learner predicts values alone. The variance of a single model that predicts both, such as a
        Gaussian process, is all here.

    Notes
    -----
    The predictive distribution of K models is the mixture of theirs, with the mean ``1/K sum_k m_k`` and the variance
    ``1/K sum_k v_k + 1/K sum_k (m_k - m)^2`` (Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive
    uncertainty estimation using deep ensembles, NeurIPS 2017).
    """

    mean: torch.Tensor
    model: torch.Tensor | None
    noise: torch.Tensor | None

    @property
    def variance(self) -> torch.Tensor:
        """Variance of a label: the sum of the parts that are known."""
        if self.model is None or self.noise is None:
            only = self.noise if self.model is None else self.model
            assert only is not None
            return only
        return self.model + self.noise


def positive_variance(raw: torch.Tensor, floor: float = 1e-6) -> torch.Tensor:
    """Return variances from what a network returns: softplus plus a floor, which keeps the likelihood bounded.

    Parameters
    ----------
    raw
        Any real numbers.
    floor
        Least variance, in the unit of the result.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
    ensembles, NeurIPS.
    """
    return functional.softplus(raw) + floor


def mean_and_variance(outputs: torch.Tensor, kind: Kind) -> MeanVariance:
    """Return mean and variance of predictions, whatever they come from.

    Parameters
    ----------
    outputs
        Of the kind ``"mean-variance"``, in one of the shapes of `halves`; or K samples of a posterior, (K, B, T).
    kind
        ``"mean-variance"`` or ``"values"``, as `alcore.inference.kind_of` returns it.

    Raises
    ------
    UsageError
        For outputs that say nothing of a variance: one value a quantity.
    """
    if kind == "mean-variance":
        means, variances = (half.double() for half in halves(outputs))
        if means.dim() != 3:
            return MeanVariance(means, None, variances)
        return MeanVariance(means.mean(dim=0), means.var(dim=0, correction=0), variances.mean(dim=0))
    samples = check_tensor(outputs).double()
    if samples.dim() != 3:
        raise UsageError(
            f"outputs of shape {tuple(samples.shape)} are one value a quantity, which has no variance; a learner gives "
            "it as outputs = 'mean-variance', as posterior samples (K, B, T), or by dropout layers."
        )
    return MeanVariance(samples.mean(dim=0), samples.var(dim=0, correction=0), None)


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
                raise no_variance(context.learner, outputs)
            dropout.append(MCDropout(context.learner, draws, seed))
        return dropout[0](lambda: _rows(check_tensor(context.infer(inputs))))

    return infer


def no_variance(learner: Any, outputs: torch.Tensor) -> UsageError:
    """Return the error about a learner whose predictions have no variance."""
    return UsageError(
        f"the learner {type(learner).__name__} predicts values of shape {tuple(outputs.shape)} without a variance. Let "
        "it predict one (--set learner.mlp.outputs=mean-variance), give it dropout (--set learner.mlp.dropout=0.1), or "
        "use an ensemble (--learner ensemble) or a Gaussian process (--learner gp --loop gp, in alcore-gp)."
    )


def _rows(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.flatten(1) if is_map(outputs) else outputs


def has_covariance(learner: Any) -> bool:
    """Tell whether a learner offers ``posterior_covariance``."""
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
