"""Negative log-likelihood, CRPS, coverage and width of intervals: how good predicted means and variances are."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch

from alcore.errors import AlcoreError, UsageError
from alcore.inference import MeasuredOn, evaluate, predictive
from alcore.outputs import MeanVariance, first_rows, gaussian_nll, kind_of, match_targets, mean_and_variance
from alcore.pools import is_choosable
from alcore.randomness import preserve_rng_state
from alcore_metrics.base import MetricsBase, check_count
from alcore_metrics.values import check_finite, check_regression, columns

_OWNER = "UncertaintyMetrology"


class UncertaintyMetrology(MetricsBase):
    """Measure the likelihood, the CRPS and the intervals of predicted means and variances.

    Parameters
    ----------
    level
        Nominal coverage of the intervals, between 0 and 1.
    noise
        Variance of the noise of the targets, in their unit squared, for a learner that predicts none: added to the
        variance of its posterior samples. It must be above 0, since otherwise a target that differs from samples
        without variance has likelihood 0.
    draws
        Number of posterior samples that MC dropout draws, where the learner has dropout layers and doesn't return
        posterior samples.
    on
        ``"validation"``, ``"pool"``, ``"train"`` (the labeled samples) or ``"unlabeled"`` (samples that may still be
        asked for, where the pool knows their answers); if not given, the first of the first three that there is. See
        `alcore.inference.evaluate`.

    Raises
    ------
    UsageError
        Before step 0 for classification, for a learner whose predictions have no variance, and if there is nothing of
        what `on` says; for outputs and targets that are not the same quantities, and targets that are NaN or infinite.
    AlcoreError
        If a mean or a variance is NaN or infinite, or a variance is not above 0.

    Notes
    -----
    The prediction of a quantity y is a normal distribution with mean m and variance v, as
    `alcore.outputs.mean_and_variance` finds them: of a learner that predicts both, of a mixture of posterior samples,
    or of MC dropout. With ``z = (y - m) / s`` and ``s = sqrt(v)``, each record holds ``step``, ``train_samples``,
    ``on``, and means over the samples and quantities:

    - ``nll``: ``(log(2 pi v) + z^2) / 2``.
    - ``crps``: ``s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))``, the continuous ranked probability score, in the unit
      of the target; of a prediction without variance it is the absolute error (Gneiting and Raftery, Strictly proper
      scoring rules, prediction, and estimation, JASA 2007, equation 21 and the example of the normal distribution).
    - ``coverage``: the share of targets in the central interval ``m - q s`` to ``m + q s`` of the `level`, near `level`
      where variances are right; ``width``: the mean width of these intervals, ``2 q s``, in the unit of the target.
      Of two learners with the right coverage, the one with narrower intervals is better.

    It ends with ``level`` and ``samples``. If ``"unlabeled"`` samples have run out, ``samples`` is 0 and the rest is
    missing. Sums are in double precision, memory is O(chunk), for MC dropout `draws` times that.
    """

    def __init__(self, level: float = 0.9, noise: float = 1e-6, draws: int = 20, on: MeasuredOn | None = None) -> None:
        super().__init__(on)
        if not 0 < level < 1:
            raise UsageError(f"{_OWNER}: level is {level}; it must be between 0 and 1, for instance 0.9.")
        if not 0 < noise < math.inf:
            raise UsageError(f"{_OWNER}: noise is {noise}; it must be above 0, for instance 1e-6.")
        check_count(_OWNER, "draws", draws, 2)
        self.level, self.noise, self.draws = level, noise, draws

    def check(self) -> None:
        """Raise `UsageError` for classification, predictions without variance, and samples that lack."""
        check_regression(self.driver)
        super().check()
        ids = next(self.driver.candidates(2), None) if is_choosable(self.driver.choice_pool) else None
        if ids is not None:
            with preserve_rng_state():
                outputs = self._infer()(self.driver.choice_pool.inputs(ids))
            self._distribution(first_rows(outputs, len(ids), len(ids)))

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        on, batches = evaluate(self.driver, self.on, self._infer())
        quantile = NormalDist().inv_cdf((1 + self.level) / 2)
        sums, values, count = torch.zeros(4, dtype=torch.float64), 0, 0
        for outputs, targets in batches:
            distribution = self._distribution(outputs.cpu())
            mean, variance = columns(distribution.mean), columns(distribution.variance)
            true = columns(match_targets(distribution.mean, targets.cpu()))
            check_finite(_OWNER, mean, true, count, on)
            if not bool((variance > 0).logical_and(variance.isfinite()).all()):
                raise AlcoreError(
                    f"{_OWNER}: a predicted variance is not a finite number above 0 (the least is "
                    f"{float(variance.min()):g}); let the learner keep it above a floor."
                )
            deviation = variance.sqrt()
            z = (true - mean) / deviation
            sums += torch.stack(
                [
                    gaussian_nll(mean, variance, true).sum() + true.numel() * math.log(2 * math.pi) / 2,
                    gaussian_crps(z, deviation).sum(),
                    (z.abs() <= quantile).sum(),
                    2 * quantile * deviation.sum(),
                ]
            )
            values, count = values + true.numel(), count + len(true)
        if not values:
            self.record_nothing(on)
            return
        names = ("nll", "crps", "coverage", "width")
        measured = dict(zip(names, (sums / values).tolist(), strict=True))
        self.append_record(on=on, **measured, level=self.level, samples=count)

    def _infer(self) -> Any:
        return predictive(self.driver, self.draws, self.generator("dropout").initial_seed())

    def _distribution(self, outputs: torch.Tensor) -> MeanVariance:
        spread = mean_and_variance(outputs, kind_of(self.driver.learner, "regression"))
        return spread if spread.noise is not None else spread._replace(noise=torch.full_like(spread.mean, self.noise))


def gaussian_crps(z: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return the continuous ranked probability score of normal distributions, elementwise.

    Parameters
    ----------
    z
        Target less mean, in standard deviations.
    deviation
        Standard deviation, above 0.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102.
    """
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    score: torch.Tensor = deviation * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return score
