"""RMSE, MAE, R2 and the likelihood of a regression, from sums over chunks."""

from __future__ import annotations

import math
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference import evaluate
from alcore.pools import is_choosable
from alcore.strategies import BaseMetrology
from alcore_regression.outputs import check_regression, check_values, match, posterior_of


class RegressionMetrology(BaseMetrology):
    """Measure RMSE, MAE and R2 of the learner, and the likelihood of the targets if it returns posterior samples.

    Parameters
    ----------
    noise
        Variance of the noise of the targets, in their unit squared: added to the variance of posterior samples in
        ``nll``. It must be above 0, since otherwise a target that differs from samples without variance has likelihood
        0.

    Notes
    -----
    Each record holds ``step``, ``train_samples``, ``on`` (``"validation"``, ``"pool"`` or ``"train"``), ``rmse``,
    ``mae``, ``r2``, ``samples``, and for posterior samples (K, B, T) ``nll``: the mean of ``(log(2 pi v) + (y - m)^2 /
    v) / 2`` with the mean m of the K predictions and v their variance plus `noise`. R2 is 1 less the ratio of the
    squared error to that of the mean target; if all targets are equal it is 1 for correct predictions and 0 for others,
    and for a single sample it is NaN. Of several quantities, such as the values of a
    field, the mean is recorded. The values are those of
    scikit-learn's ``root_mean_squared_error``, ``mean_absolute_error`` and ``r2_score``. Sums are in double precision,
    memory is O(chunk).
    """

    def __init__(self, noise: float = 1e-6) -> None:
        super().__init__()
        if not 0 < noise < math.inf:
            raise UsageError(f"RegressionMetrology: noise is {noise}; it must be above 0, for instance 1e-6.")
        self.noise = noise

    def check(self) -> None:
        """Raise `UsageError` for classification, and for outputs that are not those of a regression."""
        info = self.driver.info
        check_regression(None if info is None else info.task)
        if is_choosable(self.driver.choice_pool) and (outputs := self.driver.probe()) is not None:
            check_values(outputs)

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        on, batches = evaluate(self.driver)
        sums: _Sums | None = None
        for outputs, targets in batches:
            outputs, targets = check_values(outputs).cpu(), targets.cpu()
            predicted, true = match(outputs, targets)
            if not bool(true.isfinite().all()):
                raise UsageError("RegressionMetrology: a target to measure on is NaN or infinite; leave it out.")
            sums = sums or _Sums(true.shape[1])
            sums.add(predicted, true)
            samples = posterior_of(outputs, targets)
            if samples is not None:
                sums.add_likelihood(predicted, true, samples.var(dim=0, correction=0) + self.noise)
        if sums is None or not sums.count:
            raise UsageError("RegressionMetrology: there is no sample to measure on.")
        self.append_record(on=on, **sums.metrics())


class _Sums:
    """Sums over chunks, for each quantity; the spread of the targets is merged from those of the chunks.

    The spread follows Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample
    variances: a sum of squares less a squared sum would lose all digits where targets are far from 0. The first
    target is subtracted from all, so that equal targets have a spread of exactly 0.
    """

    def __init__(self, quantities: int) -> None:
        self.count = 0
        self._squares, self._absolutes, self._mean, self._spread, self._nll = torch.zeros(
            5, quantities, dtype=torch.float64
        )
        self._has_likelihood = False

    def add(self, predicted: torch.Tensor, true: torch.Tensor) -> None:
        """Add a chunk of shape (B, T)."""
        n = len(true)
        if not n:
            return
        error = predicted - true
        self._squares += error.square().sum(dim=0)
        self._absolutes += error.abs().sum(dim=0)
        if not self.count:
            self._zero = true[0]
        from_zero = true - self._zero
        mean = from_zero.mean(dim=0)
        apart = mean - self._mean
        self._spread += (from_zero - mean).square().sum(dim=0) + apart.square() * (self.count * n / (self.count + n))
        self._mean += apart * (n / (self.count + n))
        self.count += n

    def add_likelihood(self, predicted: torch.Tensor, true: torch.Tensor, variance: torch.Tensor) -> None:
        """Add the same chunk with the variances, all of shape (B, T)."""
        self._has_likelihood = True
        self._nll += ((2 * math.pi * variance).log() + (predicted - true).square() / variance).sum(dim=0) / 2

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name."""
        metrics = {
            "rmse": (self._squares / self.count).sqrt().mean().item(),
            "mae": (self._absolutes / self.count).mean().item(),
            "r2": self._r2(),
        }
        if self._has_likelihood:
            metrics["nll"] = (self._nll / self.count).mean().item()
        return {**metrics, "samples": self.count}

    def _r2(self) -> float:
        if self.count < 2:
            return math.nan
        constant = (self._squares > 0).double()  # 1 - 0 / 0 is 1, and 1 - s / 0 is 0
        ratio = torch.where(self._spread > 0, self._squares / self._spread, constant)
        return (1 - ratio).mean().item()
