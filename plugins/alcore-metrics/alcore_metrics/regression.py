"""RMSE, MAE, R2, the largest error, rank correlation and the likelihood of a regression, over chunks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from alcore.errors import UsageError
from alcore.inference import MeasuredOn, evaluate
from alcore.outputs import kind_of, mean_and_variance
from alcore_metrics.base import MetricsBase, check_count
from alcore_metrics.sample import Array, RowSample
from alcore_metrics.values import check_finite, check_regression, check_values, columns, match, posterior_of


class RegressionMetrology(MetricsBase):
    """Measure RMSE, MAE, R2, the largest error and Spearman's correlation, and the likelihood.

    Parameters
    ----------
    noise
        Variance of the noise of the targets, in their unit squared: added to the variance of posterior samples in
        ``nll``. It must be above 0, since otherwise a target that differs from samples without variance has likelihood
        0.
    on
        ``"validation"``, ``"pool"``, ``"train"`` (the labeled samples) or ``"unlabeled"`` (samples that may still be
        asked for, where the pool knows their answers); if not given, the first of the first three that there is. See
        `alcore.inference.evaluate`.
    max_scores
        Most predictions in memory for ``spearman`` (samples times quantities). Where there are more, samples are drawn
        at random, and the record says how many (``spearman_samples``); 0 leaves it out.

    Raises
    ------
    UsageError
        Before step 0 for classification, and if there is nothing of what `on` says; for outputs and targets that are
        not the same quantities, and for targets that are NaN or infinite.
    AlcoreError
        If an output is NaN or infinite.

    Notes
    -----
    Each record holds ``step``, ``train_samples``, ``on``, ``rmse``, ``mae``, ``r2``, ``max_error``, ``spearman`` (not
    for targets of three or more axes, which are fields), ``nll`` (for posterior samples (K, B, T), and for predicted
    variances) and ``samples``.
    If ``"unlabeled"`` samples have run out, ``samples`` is 0 and the rest is missing.

    R2 is 1 less the ratio of the squared error to that of the mean target; if all targets are equal it is 1 for correct
    predictions and 0 for others, and for a single sample it is NaN. ``spearman`` is the linear correlation of the ranks
    of predictions and targets, equal values sharing their mean rank (Spearman 1904); NaN where either are all equal.
    ``nll`` is the mean of ``(log(2 pi v) + (y - m)^2 / v) / 2`` with the mean m of the K predictions and v their
    variance plus `noise`; v of a learner that predicts variances follows from these (`UncertaintyMetrology`). Of
    several quantities, such as the values of a field, the mean is recorded, and the largest ``max_error``. The values
    are those of scikit-learn's ``root_mean_squared_error``, ``mean_absolute_error``, ``r2_score`` and ``max_error``,
    and of ``scipy.stats.spearmanr``. Sums are in double precision, memory is O(chunk + `max_scores`).
    """

    def __init__(self, noise: float = 1e-6, on: MeasuredOn | None = None, max_scores: int = 2_000_000) -> None:
        super().__init__(on)
        if not 0 < noise < math.inf:
            raise UsageError(f"RegressionMetrology: noise is {noise}; it must be above 0, for instance 1e-6.")
        check_count("RegressionMetrology", "max_scores", max_scores, 0)
        self.noise, self.max_scores = noise, max_scores

    def check(self) -> None:
        """Raise `UsageError` for classification, outputs that are not those of a regression, and samples that lack."""
        check_regression(self.driver)
        super().check()

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        kind = kind_of(self.driver.learner, "regression")
        on, batches = evaluate(self.driver, self.on)
        sums: _Sums | None = None
        for outputs, targets in batches:
            outputs, targets = check_values(outputs).cpu(), targets.cpu()
            predicted, true = match(outputs, targets, kind)
            if sums is None:
                quantities = true.shape[1]
                sums = _Sums(quantities, self.max_scores // max(quantities, 1) if targets.dim() < 3 else 0)
            check_finite("RegressionMetrology", predicted, true, sums.count, on)
            sums.add(predicted, true)
            if kind == "mean-variance":
                sums.add_likelihood(predicted, true, columns(mean_and_variance(outputs, kind).variance))
            elif (samples := posterior_of(outputs, targets)) is not None:
                sums.add_likelihood(predicted, true, samples.var(dim=0, correction=0) + self.noise)
        if sums is None or not sums.count:
            self.record_nothing(on)
            return
        self.append_record(on=on, **sums.metrics())


class _Sums:
    """Sums over chunks, for each quantity; the spread of the targets is merged from those of the chunks.

    The spread follows Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample
    variances: a sum of squares less a squared sum would lose all digits where targets are far from 0. The first
    target is subtracted from all, so that equal targets have a spread of exactly 0.
    """

    def __init__(self, quantities: int, ranked: int) -> None:
        self.count = 0
        self._ranked, self._most_ranked, self._largest = RowSample(ranked), ranked, 0.0
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
        self._ranked.add(predicted.numpy(), true.numpy())
        self._largest = max(self._largest, error.abs().max().item())
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
        metrics: dict[str, Any] = {
            "rmse": (self._squares / self.count).sqrt().mean().item(),
            "mae": (self._absolutes / self.count).mean().item(),
            "r2": self._r2(),
            "max_error": self._largest,
        }
        if self._most_ranked:
            metrics["spearman"] = _spearman(*self._ranked.columns())
            if self.count > self._most_ranked:
                metrics["spearman_samples"] = self._most_ranked
        if self._has_likelihood:
            metrics["nll"] = (self._nll / self.count).mean().item()
        return {**metrics, "samples": self.count}

    def _r2(self) -> float:
        if self.count < 2:
            return math.nan
        constant = (self._squares > 0).double()  # 1 - 0 / 0 is 1, and 1 - s / 0 is 0
        ratio = torch.where(self._spread > 0, self._squares / self._spread, constant)
        return (1 - ratio).mean().item()


def _spearman(predicted: Array, true: Array) -> float:
    """Return the mean over quantities of the correlation of ranks, of those for which it is defined; else NaN."""
    ranks = [rankdata(values, axis=0) for values in (predicted, true)]
    a, b = (rank - (len(rank) + 1) / 2 for rank in ranks)  # ranks have this mean, ties or not
    scale = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    if not scale.any():
        return math.nan
    return float(((a * b).sum(axis=0)[scale > 0] / scale[scale > 0]).mean())
