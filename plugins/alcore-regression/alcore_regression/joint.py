"""The joint posterior of candidates: how their predictions vary together, and what a label of one tells of others."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from alcore.errors import QueryError, UsageError
from alcore.inference import chunks, has_covariance, posterior_covariance, predictive
from alcore.outputs import kind_of, mean_and_variance, means_of
from alcore.protocols import RunContext

_PAIRS = 256  # samples whose covariances with as many others are computed for those of pairs
_LEAST = 1e-9  # share of the largest variance, below which a variance is that of rounding


class Joint(NamedTuple):
    """The posterior of some samples: variances, float64 (T, N) of T quantities, and what their covariances follow from.

    Parameters
    ----------
    context
        The run.
    pool
        The pool of the samples.
    ids
        The samples: int64 (N,).
    model
        Variance of the predicted values, which more labels reduce.
    noise
        Variance of a label around its value.
    deviations
        Posterior samples less their mean, float64 (K, N, T); None for a learner that offers ``posterior_covariance``.
    """

    context: RunContext
    pool: Any
    ids: torch.Tensor
    model: torch.Tensor
    noise: torch.Tensor
    deviations: torch.Tensor | None

    def covariance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the covariances between samples at positions a, int64 (A,), and b, (B,): float64, shape (T, A, B)."""
        if self.deviations is None:
            return posterior_covariance(self.context, self.ids[a], self.ids[b], pool=self.pool)
        left, right = (self.deviations[:, rows].permute(2, 1, 0) for rows in (a, b))  # (T, A, K)
        return left @ right.mT / len(self.deviations)

    def paired(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the covariance of each sample at positions a, int64 (A,), with that at b, (A,): float64, (T, A)."""
        if self.deviations is not None:
            return (self.deviations[:, a] * self.deviations[:, b]).mean(dim=0).T
        parts = zip(torch.split(a, _PAIRS), torch.split(b, _PAIRS), strict=True)
        return torch.cat([self.covariance(*part).diagonal(dim1=1, dim2=2) for part in parts], dim=1)


def joint_posterior(
    context: RunContext, ids: torch.Tensor, draws: int, seed: int, noise: float, pool: Any = None
) -> Joint:
    """Return the joint posterior of samples, of whatever the learner offers.

    Parameters
    ----------
    context
        The run.
    ids
        Samples of the pool: int64 (N,).
    draws, seed
        Number and seed of the posterior samples that MC dropout draws, where they are needed.
    noise
        Variance of the noise of a label, where the learner predicts none: a share of the mean variance of each quantity
        over the samples.
    pool
        The pool of the samples; the pool to choose from if None.

    Raises
    ------
    UsageError
        For a learner that predicts each sample alone.
    """
    learner = context.learner
    kind = kind_of(learner, "regression")
    if has_covariance(learner):
        model = posterior_covariance(context, ids, pool=pool)
        refuse_infinite(model.sum(dim=0), ids)
        variances = [
            mean_and_variance(outputs, kind).variance.flatten(1).cpu()
            for _, outputs in chunks(context, ids=ids, pool=pool)
        ]
        return Joint(context, pool, ids, model, (torch.cat(variances).T - model).clamp_min(0), None)
    infer = predictive(context, draws, seed)
    parts: list[torch.Tensor] = []
    noises: list[torch.Tensor] = []
    for _, outputs in chunks(context, infer, ids=ids, pool=pool, samples=draws):
        if outputs.dim() != 3:
            raise no_joint(context, outputs)
        parts.append(means_of(outputs, kind).double().cpu())
        if kind == "mean-variance":
            noises.append(mean_and_variance(outputs, kind).noise.cpu())  # type: ignore[union-attr]
    samples = torch.cat(parts, dim=1)
    refuse_infinite(samples.sum(dim=(0, 2)), ids)
    deviations = samples - samples.mean(dim=0)
    model = deviations.square().mean(dim=0).T
    if noises:
        return Joint(context, pool, ids, model, torch.cat(noises).T, deviations)
    return Joint(context, pool, ids, model, (noise * model.mean(dim=1, keepdim=True)).expand_as(model), deviations)


class Conditioned:
    """The joint posterior of samples when labels of some of them are known, one after the other.

    A label of sample p changes the covariance of samples a and b to ``c(a, b) - c(a, p) c(p, b) / (c(p, p) + s(p))``
    with the noise s of the label, whatever the label is: exactly for a Gaussian process with fixed hyperparameters, and
    to second order for posterior samples.

    Attributes
    ----------
    joint : Joint
        What is known without these labels.
    variance : torch.Tensor
        Variances of the predicted values: float64, shape (T, N).
    """

    def __init__(self, joint: Joint) -> None:
        self.joint = joint
        self.variance = joint.model.clone()
        self._floor = _LEAST * joint.model.amax(dim=1, keepdim=True)
        self._known: list[torch.Tensor] = []

    def add(self, place: int) -> torch.Tensor:
        """Count the sample at a position as labeled.

        Returns
        -------
        torch.Tensor
            The vector u (T, N), for which ``u(a) u(b)`` is the loss of covariance of samples a and b.
        """
        row = torch.tensor([place])
        shared = self.joint.covariance(torch.arange(len(self.joint.ids)), row)[:, :, 0]
        for vector in self._known:
            shared = shared - vector * vector[:, row]
        own = self.variance[:, row]
        told = torch.where(own > self._floor, shared / (own + self.joint.noise[:, row]).sqrt(), 0.0)
        self.variance = (self.variance - told.square()).clamp_min(0)
        self._known.append(told)
        return told

    def label_variance(self) -> torch.Tensor:
        """Return the variances of labels: float64, shape (T, N)."""
        return self.variance + self.joint.noise

    def tells(self) -> torch.Tensor:
        """Return 1 over the variances of labels, and 0 where a label tells nothing more: float64, shape (T, N)."""
        return torch.where(self.variance > self._floor, 1 / self.label_variance(), 0.0)


def refuse_infinite(values: torch.Tensor, ids: torch.Tensor) -> None:
    """Raise `QueryError` if values, one of each sample, are NaN or infinite; the message names the samples."""
    bad = ~values.isfinite()
    if bool(bad.any()):
        named = ", ".join(map(str, sorted(set(ids[bad].tolist()))[:5]))
        raise QueryError(
            f"what the learner predicts for sample {named} is NaN or infinite, so samples can't be ranked; look at the "
            "inputs, or at the learner's outputs for them."
        )


def no_joint(context: RunContext, outputs: torch.Tensor) -> UsageError:
    """Return the error about a learner that predicts a variance for each sample alone."""
    return UsageError(
        f"the learner {type(context.learner).__name__}, with outputs of shape {tuple(outputs.shape)}, predicts mean "
        "and variance of each sample alone, and this needs to know how predictions vary together. Use a Gaussian "
        "process (--learner gp, in alcore-gp), an ensemble (--learner ensemble) or dropout (--set "
        "learner.mlp.dropout=0.1), or --query max-variance."
    )
