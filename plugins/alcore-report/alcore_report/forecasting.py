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
_MEMORY = 0.15  # the weight of a measurement with half as many labels as the last one; see docs/forecast.md


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is expected at some numbers of labels.

    Parameters
    ----------
    labels
        Where, shape (M,), ascending.
    expected, low, high
        The median and the ends of the interval that holds a measurement there with probability `LEVEL`, shape (M,).
    limit
        Median of what the curve tends to.
    """

    labels: Array
    expected: Array
    low: Array
    high: Array
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
    Earlier measurements count less, since the law holds over part of a curve. How much less, and the width of the prior
    of a and b, were set on other runs, so that 90% intervals hold 90% of later measurements there.

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
    tails = np.array([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    freedom = np.array([part.freedom for part in parts])
    quantiles = np.array(
        [
            _mixture_quantiles(
                tails,
                weights,
                np.array([part.mean[place] for part in parts]),
                np.array([part.sd[place] for part in parts]),
                freedom,
            )
            for place in range(len(at))
        ]
    )
    limit = _weighted_median(np.array([part.limit for part in parts]), weights)
    back = [np.clip(center + scale * values, *bounds) for values in (*quantiles.T, np.array([limit]))]
    return Forecast(np.asarray(at, float), back[1], back[0], back[2], float(back[3][0]))


@dataclasses.dataclass(frozen=True)
class _Part:
    """The forecast of one exponent and correlation: Student's t of some degrees of freedom at each place."""

    evidence: float
    mean: Array
    sd: Array
    freedom: float
    limit: float


def _fit(n: Array, z: Array, at: Array, exponent: float, correlation: float) -> _Part:
    last = n[-1]
    design = np.stack([np.ones_like(n), (n / last) ** -exponent - 1], axis=1)
    ahead = np.stack([np.ones_like(at), (at / last) ** -exponent - 1], axis=1)
    weight = np.exp(np.log(_MEMORY) * np.log2(last / n) / 2)  # of the square root of each term
    white_x, white_z = _whiten(design, correlation) * weight[:, None], _whiten(z[:, None], correlation)[:, 0] * weight
    # prior given the noise: the coefficients have five times its standard deviation, and the noise is 0.05 of the range
    precision = np.eye(2) / 5.0**2
    shape, rate = 1.0, 0.05**2
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
    return _Part(evidence, ahead @ mean + decay * residual, np.sqrt(spread), 2 * shape_now, float(mean[0] - mean[1]))


def _whiten(rows: Array, correlation: float) -> Array:
    """Return rows whose noise is independent, of rows whose noise is a first-order autoregression."""
    first = rows[:1] * math.sqrt(1 - correlation**2)
    return np.concatenate([first, rows[1:] - correlation * rows[:-1]])


def _mixture_quantiles(tails: Array, weights: Array, mean: Array, sd: Array, freedom: Array) -> Array:
    """Return quantiles of a mixture of Student's t, by bisection."""
    kept = weights > 1e-6
    weights, mean, sd, freedom = weights[kept] / weights[kept].sum(), mean[kept], sd[kept], freedom[kept]
    quantiles = []
    for tail in tails:
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
        """What the last of the labels asked for are expected to bring, in a sentence."""
        ahead, now = self.ahead, float(self.values[-1])
        more = int(ahead.labels[-1] - self.labels[-1])
        expected, low, high = (float(seconds[-1]) for seconds in (ahead.expected, ahead.low, ahead.high))
        labels = "label is" if more == 1 else "labels are"
        said = (
            f"{more} more {labels} expected to bring {self.short} from {now:.3g} to {expected:.3g}; "
            f"{LEVEL:.0%} interval {low:.3g} to {high:.3g}"
        )
        if low <= now <= high:
            return f"{said}, which includes the value now: they may bring nothing."
        better = (expected > now) != lower_is_better(self.metric)
        return f"{said}, all of it {'better' if better else 'worse'} than now."


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
