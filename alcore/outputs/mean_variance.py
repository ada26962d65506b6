"""Mean and variance of predictions: of a learner that predicts both, and of posterior samples, such as by MC dropout.

A learner of a regression whose attribute ``outputs`` is ``"mean-variance"`` returns twice as many columns, or channels,
as there are quantities: first the predicted means, then the variances of a label around them, in the unit of the target
squared. So the shapes are ``(B, 2 T)`` for T quantities, ``(K, B, 2 T)`` for K samples of a posterior, such as the
members of an ensemble, and ``(B, 2 C, ...)`` of four axes or more for a field of C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from alcore.errors import UsageError
from alcore.outputs.kinds import Kind, check_tensor, halves


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
    """Return mean and variance of predictions, from any kind of outputs.

    Parameters
    ----------
    outputs
        Of the kind ``"mean-variance"``, in one of the shapes of `halves`; or K samples of a posterior, (K, B, T).
    kind
        ``"mean-variance"`` or ``"values"``, as `alcore.outputs.kind_of` returns it.

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
