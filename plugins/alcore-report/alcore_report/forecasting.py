"""Extend the learning curve of a run: what more labels would bring, with an interval."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import stats

from alcore.errors import UsageError
from alcore_report.curves import Curve, lower_is_better, metric_name, points_of
from alcore_report.statistics import Array

FEWEST = 6
"""Measurements that a forecast needs."""
LEVEL = 0.9
"""Share of forecasts whose interval should hold what is measured later."""
_EXPONENTS = np.geomspace(0.1, 3.0, 18)
_CORRELATIONS = (0.0, 0.3, 0.6, 0.85)
_MEMORY = 0.4  # the weight of a measurement with half as many labels as the last one; see docs/forecast.md


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is expected at some numbers of labels.

    Parameters
    ----------
    labels
        Where, shape (M,), ascending.
    expected, low, high
        The median and the ends of the interval that holds a measurement there with probability `LEVEL`, shape (M,).
    change, change_low, change_high
        The median and the ends of such an interval of how much the curve without noise changes from the last
        measurement to there, shape (M,).
    limit
        Median of what the curve tends to.
    """

    labels: Array
    expected: Array
    low: Array
    high: Array
    change: Array
    change_low: Array
    change_high: Array
    limit: float


def forecast(
    labels: Array, values: Array, at: Array, *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Forecast:
    """Forecast what a metric will be.

    Parameters
    ----------
    labels
        Labeled samples at each measurement, shape (K,), ascending.
    values
        The metric there, shape (K,).
    at
        Numbers of labels above the last one, shape (M,), ascending.
    bounds
        The least and the greatest value that the metric can have.

    Returns
    -------
    Forecast
        For a measurement at each number of labels, its noise included.

    Raises
    ------
    UsageError
        If there are fewer than `FEWEST` measurements of different numbers of labels.

    Notes
    -----
    The curve is a power law with noise of a first-order autoregression,

        y(n) = a + b (n / n_K)^(-c) + e_n,    e_k = r e_(k-1) + u_k,    u_k normal.

    For each exponent c and correlation r of a grid, a and b have a normal prior given the noise, and the noise an
    inverse gamma prior, so that forecasts are Student's t in closed form; the grid is weighted by marginal likelihoods.
    The change of the curve from n_K to n is b ((n / n_K)^(-c) - 1), without the noise of a measurement. Earlier
    measurements count less, since the law holds over part of a curve. How much less, and the priors, were set on other
    runs, so that 90% intervals hold 90% of later measurements there.

    References
    ----------
    Power laws of learning curves: Viering and Loog (2023), The shape of learning curves: a review, IEEE TPAMI 45.
    Bayesian linear regression: O'Hagan and Forster (2004), Bayesian inference, chapter 11.
    """
    order = np.argsort(labels, kind="stable")
    n, y = np.asarray(labels, float)[order], np.asarray(values, float)[order]
    kept = np.isfinite(y) & (n > 0)
    n, y = n[kept], y[kept]
    if len(np.unique(n)) < FEWEST:
        raise UsageError(
            f"a forecast needs at least {FEWEST} measurements at different numbers of labels, and there are "
            f"{len(np.unique(n))}; run more steps first."
        )
    scale = float(np.ptp(y)) or max(abs(float(y[-1])), 1.0) * 1e-6
    z, center = (y - y[-1]) / scale, y[-1]
    parts = [_fit(n, z, np.asarray(at, float), c, r) for c in _EXPONENTS for r in _CORRELATIONS]
    evidence = np.array([part.evidence for part in parts])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    freedom = np.array([part.freedom for part in parts])

    def quantiles(means: list[Array], deviations: list[Array]) -> Array:
        """Return the lower end, median and upper end at each place, shape (3, M), of a mean and deviation a part."""
        columns = zip(np.stack(means, axis=1), np.stack(deviations, axis=1), strict=True)
        return np.stack([_mixture_quantiles(weights, mean, sd, freedom) for mean, sd in columns], axis=1)

    limit = _weighted_median(np.array([part.limit for part in parts]), weights)
    low, expected, high = np.clip(
        center + scale * quantiles([part.mean for part in parts], [part.sd for part in parts]), *bounds
    )
    change_low, change, change_high = scale * quantiles(
        [part.change for part in parts], [part.change_sd for part in parts]
    )
    return Forecast(
        np.asarray(at, float), expected, low, high, change, change_low, change_high,
        float(np.clip(center + scale * limit, *bounds)),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Part:
    """The forecast of one exponent and correlation: Student's t of some degrees of freedom at each place.

    `mean` and `sd` are those of a measurement, `change` and `change_sd` those of how much the curve changes.
    """

    evidence: float
    mean: Array
    sd: Array
    change: Array
    change_sd: Array
    freedom: float
    limit: float


def _fit(n: Array, z: Array, at: Array, exponent: float, correlation: float) -> _Part:
    last = n[-1]
    design = np.stack([np.ones_like(n), (n / last) ** -exponent - 1], axis=1)
    ahead = np.stack([np.ones_like(at), (at / last) ** -exponent - 1], axis=1)
    weight = np.exp(np.log(_MEMORY) * np.log2(last / n) / 2)  # of the square root of each term
    white_x, white_z = _whiten(design, correlation) * weight[:, None], _whiten(z[:, None], correlation)[:, 0] * weight
    # prior given the noise: a has 5 and b 25 times its standard deviation, which is about 0.02 of the range
    precision = np.diag([1 / 5.0**2, 1 / 25.0**2])
    shape, rate = 2.0, 0.02**2
    posterior = precision + white_x.T @ white_x
    mean = np.linalg.solve(posterior, white_x.T @ white_z)
    count = float((weight**2).sum())
    rate_now = rate + 0.5 * float(white_z @ white_z - mean @ posterior @ mean)
    shape_now = shape + count / 2
    evidence = (
        0.5 * (np.linalg.slogdet(precision)[1] - np.linalg.slogdet(posterior)[1])
        + shape * math.log(rate) - shape_now * math.log(max(rate_now, 1e-300))
        + math.lgamma(shape_now)
    )  # fmt: skip
    step = max(float(np.median(np.diff(np.unique(n)))), 1e-9)
    decay = correlation ** ((at - last) / step)
    residual = float(z[-1] - design[-1] @ mean)
    noise = max(rate_now, 1e-300) / shape_now
    stationary = noise / (1 - correlation**2)
    covariance = np.linalg.inv(posterior) * noise
    spread = np.einsum("ij,jk,ik->i", ahead, covariance, ahead) + stationary * (1 - decay**2)
    return _Part(
        evidence,
        ahead @ mean + decay * residual,
        np.sqrt(spread),
        ahead[:, 1] * mean[1],
        np.abs(ahead[:, 1]) * math.sqrt(covariance[1, 1]),
        2 * shape_now,
        float(mean[0] - mean[1]),
    )


def _whiten(rows: Array, correlation: float) -> Array:
    """Return rows whose noise is independent, of rows whose noise is a first-order autoregression."""
    first = rows[:1] * math.sqrt(1 - correlation**2)
    return np.concatenate([first, rows[1:] - correlation * rows[:-1]])


def _mixture_quantiles(weights: Array, mean: Array, sd: Array, freedom: Array) -> Array:
    """Return the lower end, the median and the upper end of a mixture of Student's t, by bisection; shape (3,)."""
    kept = weights > 1e-6
    weights, mean, sd, freedom = weights[kept] / weights[kept].sum(), mean[kept], sd[kept], freedom[kept]
    quantiles = []
    for tail in ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2):
        ends = mean + sd * stats.t.ppf(tail, freedom)
        low, high = float(ends.min()), float(ends.max())
        for _ in range(60):
            middle = (low + high) / 2
            if float(weights @ stats.t.cdf((middle - mean) / sd, freedom)) < tail:
                low = middle
            else:
                high = middle
        quantiles.append((low + high) / 2)
    return np.array(quantiles)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])


@dataclasses.dataclass(frozen=True)
class RunForecast:
    """The forecast of a run's metric.

    Parameters
    ----------
    metric
        Its name, with that of the metrology strategy.
    labels, values
        What was measured, shape (K,).
    ahead
        What is expected.
    """

    metric: str
    labels: Array
    values: Array
    ahead: Forecast

    @property
    def short(self) -> str:
        """The name of the metric alone."""
        return self.metric.rpartition(".")[2]

    @property
    def verdict(self) -> str:
        """What the labels asked for are expected to bring, the first half and all of them, in two sentences."""
        ahead, now = self.ahead, float(self.values[-1])
        more = (ahead.labels - self.labels[-1]).astype(int)
        half = int(np.searchsorted(more, more[-1] / 2))
        next_labels = "next label is" if more[half] == 1 else f"next {more[half]} labels are"
        said = f"The {next_labels} expected to bring {self.short} from {now:.3g} to {ahead.expected[half]:.3g}"
        if half < len(more) - 1:
            said += f", and {more[-1] - more[half]} more to {ahead.expected[-1]:.3g}"
        ends = float(ahead.change_low[-1]), float(ahead.change_high[-1])
        change = f"change by {ends[0]:+.3g} to {ends[1]:+.3g} ({LEVEL:.0%} interval), noise left out"
        if min(ends) <= 0 <= max(ends):
            return f"{said}. They may bring nothing: with all of them it will {change}."
        if (ends[0] > 0) != lower_is_better(self.metric):
            return f"{said}. They will help: with all of them it will {change}."
        return f"{said}. It gets worse: with all of them it will {change}."


def forecast_curve(curve: Curve, more: int, metric: str | None = None) -> RunForecast:
    """Forecast a metric of a run for a quarter, half, three quarters and all of a number of further labels.

    Parameters
    ----------
    curve
        Of the run.
    more
        How many labels.
    metric
        As the user names it; a usual one if it is None.

    Raises
    ------
    UsageError
        If there are too few measurements, or the metric was not measured.
    """
    name = metric_name([curve], metric)
    labels, values = points_of(curve, name, over_cost=False)
    places = labels[-1] + np.unique(np.ceil(np.array([0.25, 0.5, 0.75, 1.0]) * more))
    return RunForecast(name, labels, values, forecast(labels, values, places, bounds=bounds_of(name, values)))


def bounds_of(metric: str, values: Array) -> tuple[float, float]:
    """Return the least and greatest value that a metric can have, as far as its name and values say."""
    least = 0.0 if float(values.min()) >= 0 else -math.inf
    most = 1.0 if float(values.max()) <= 1 and not lower_is_better(metric) else math.inf
    return least, most
