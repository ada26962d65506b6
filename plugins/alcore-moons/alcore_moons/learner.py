"""A small multi-layer perceptron."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from alcore.errors import UsageError
from alcore.outputs import gaussian_nll, positive_variance
from alcore.pools import DataInfo


class MLP(torch.nn.Module):
    """Linear layers with SiLU between them.

    Parameters
    ----------
    features
        Number of inputs.
    outputs
        Number of outputs; one logit for two classes.
    hidden
        Width of each hidden layer.
    dropout
        Probability of dropping a hidden unit in training.
    """

    def __init__(
        self, features: int = 2, outputs: int = 1, hidden: Sequence[int] = (16,), dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [features, *hidden]
        layers: list[torch.nn.Module] = [torch.nn.Flatten()]
        for width, following in itertools.pairwise(widths):
            layers += [torch.nn.Linear(width, following), torch.nn.SiLU()]
            if dropout:
                layers.append(torch.nn.Dropout(dropout))
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], outputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs, shape (B, ...), to logits or values, shape (B, outputs)."""
        output: torch.Tensor = self.layers(inputs)
        return output


class RegressionMLP(MLP):
    """An `MLP` for quantities of any unit: targets are standardized inside, and outputs have the unit of the targets.

    Parameters
    ----------
    features
        Number of inputs.
    outputs
        Number of quantities.
    hidden
        Width of each hidden layer.
    dropout
        Probability of dropping a hidden unit in training.
    penalty
        Strength of the penalty on the weights, in units of ridge regression with standardized targets.
    variance
        Whether to predict the variance of a label too, by as many more columns.

    Attributes
    ----------
    outputs : str
        ``"values"``, or with `variance` ``"mean-variance"``.
    target_mean, target_scale : torch.Tensor
        Buffers of shape (outputs,): mean and standard deviation of the targets of the first training.
    label_count : torch.Tensor
        Buffer, int64: how many labels these are of; 0 before the first training.
    penalty_weight : torch.Tensor
        Buffer: the penalty of a squared weight, `penalty` over the number of labels of the last training.

    Notes
    -----
    Minimizes ``mean((f(x) - z)^2) + penalty / n ||W||^2`` over n labels, with ``z = (y - mean) / scale``, the layers f
    and their weights W without biases; the output is ``scale f(x) + mean``. Of a single layer this is ridge regression.
    Losses are therefore shares of the variance of the first labels, in validation without the penalty. Mean and
    deviation are those of the labels of the first training, and stay for later ones; a learner that is reset before
    each step (``reset_learner``) takes them anew. Equal targets have scale 1.

    With `variance` it has ``mean((log v + (f(x) - z)^2 / v) / 2)`` in place of the squared error: the negative
    log-likelihood of a normal distribution, without its constant (Nix and Weigend, Estimating the mean and variance of
    the target probability distribution, ICNN 1994). The variance v of a standardized target is the softplus of a column
    plus 1e-6 (Lakshminarayanan et al., NeurIPS 2017). The outputs are all means, and then all variances ``scale^2 v``.
    """

    target_mean: torch.Tensor
    target_scale: torch.Tensor
    label_count: torch.Tensor
    penalty_weight: torch.Tensor

    def __init__(
        self,
        features: int = 2,
        outputs: int = 1,
        hidden: Sequence[int] = (16,),
        dropout: float = 0.0,
        penalty: float = 2.0,
        variance: bool = False,
    ) -> None:
        super().__init__(features, 2 * outputs if variance else outputs, hidden, dropout)
        self.outputs = "mean-variance" if variance else "values"
        if not 0 <= penalty < math.inf:
            raise UsageError(f"learner mlp: penalty is {penalty}; it must be a finite number of at least 0.")
        self.penalty = penalty
        self.register_buffer("target_mean", torch.zeros(outputs))
        self.register_buffer("target_scale", torch.ones(outputs))
        self.register_buffer("label_count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("penalty_weight", torch.zeros(()))

    def begin_training(self, batches: Iterable[Any]) -> None:
        """Take mean and deviation of all targets, unless an earlier training did, and the number of labels.

        Parameters
        ----------
        batches
            Inputs and targets (B,) or (B, outputs), batch by batch.
        """
        rows = [self._rows(targets).detach().double().cpu() for _, targets in batches]
        if not rows:
            return
        targets = torch.cat(rows)
        self.penalty_weight.fill_(self.penalty / len(targets))
        if int(self.label_count):
            return
        deviation = targets.std(dim=0, correction=0)
        varies = targets.amax(dim=0) > targets.amin(dim=0)
        self.target_mean.copy_(targets.mean(dim=0))
        self.target_scale.copy_(torch.where(varies, deviation, 1.0))
        self.label_count.fill_(len(targets))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs, shape (B, ...), to values in the unit of the targets: (B, outputs), twice that with variances."""
        mean, variance = self._standardized(inputs)
        values = mean * self.target_scale + self.target_mean
        return values if variance is None else torch.cat([values, variance * self.target_scale.square()], dim=1)

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss of standardized values, with the penalty on the weights."""
        squares = torch.stack(
            [layer.weight.square().sum() for layer in self.layers if isinstance(layer, torch.nn.Linear)]
        )
        return self.validation_step(batch) + self.penalty_weight * squares.sum()

    def validation_step(self, batch: Any) -> torch.Tensor:
        """Return the mean squared error of standardized values, or their negative log-likelihood."""
        inputs, targets = batch
        standardized = (self._rows(targets) - self.target_mean) / self.target_scale
        mean, variance = self._standardized(inputs)
        if variance is None:
            return torch.nn.functional.mse_loss(mean, standardized)
        return gaussian_nll(mean, variance, standardized).mean()

    def _standardized(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return predictions of standardized targets, shape (B, outputs), and their variances where it has them."""
        raw: torch.Tensor = self.layers(inputs)
        if self.outputs == "values":
            return raw, None
        mean, variance = raw.chunk(2, dim=1)
        return mean, positive_variance(variance)

    def _rows(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets as (B, outputs), or raise `UsageError` if they have other quantities."""
        rows = targets.reshape(len(targets), -1)
        if rows.shape[1] != len(self.target_mean):
            raise UsageError(
                f"the learner {type(self).__name__} predicts {len(self.target_mean)} quantities a sample, and the "
                f"targets have the shape {tuple(targets.shape)}; give a learner with as many outputs as they have."
            )
        return rows


def mlp(
    info: DataInfo,
    hidden: Sequence[int] = (16,),
    dropout: float = 0.0,
    penalty: float | None = None,
    outputs: Literal["values", "mean-variance"] = "values",
) -> MLP:
    """Return a multi-layer perceptron with SiLU for the data.

    For a regression, targets are standardized inside the network; its outputs have their unit.

    Parameters
    ----------
    info
        What is known about the data: it determines the number of inputs and outputs.
    hidden
        Width of each hidden layer.
    dropout
        Probability of dropping a hidden unit in training.
    penalty
        For a regression: strength of the penalty on the weights, as ``alpha`` of ridge regression; 2 if not given.
    outputs
        For a regression: ``"values"``, or ``"mean-variance"`` to predict the variance of a label beside its value.
    """
    features = info.features or (math.prod(info.shape) if info.shape else 0)
    if not features:
        raise UsageError("learner mlp: the number of features of the data is unknown (DataInfo.features).")
    if info.task == "regression":
        strength, quantities = 2.0 if penalty is None else penalty, math.prod(info.target_shape)
        return RegressionMLP(features, quantities, hidden, dropout, strength, outputs == "mean-variance")
    if outputs != "values":
        raise UsageError(
            "learner mlp: outputs = 'mean-variance' is for a regression, and the task of this data is classification; "
            "leave it out."
        )
    if penalty is not None:
        raise UsageError(
            "learner mlp: penalty is for a regression, and the task of this data is classification; leave it out, or "
            "give the optimizer a weight decay (--set training.optimizer.weight_decay=0.1)."
        )
    return MLP(features, info.classes if info.classes > 2 else 1, hidden, dropout)
