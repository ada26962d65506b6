"""Statistics of learning curves that were repeated over seeds: pure functions over arrays.

Rows are seeds. What is compared is paired: row i of two arrays has the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Array = np.ndarray[Any, np.dtype[np.float64]]

LEVEL = 0.95
"""Of every interval."""
ALPHA = 0.05
"""A difference is told where the adjusted p is at most this."""
FIRST_SHARE = 2 / 3
"""Of the level, what a first look at the differences may spend; the rest is for looks at more seeds."""
POWER = 0.8
"""Of the difference that a test without a finding would have found."""
RESAMPLES = 4000
"""Of every bootstrap."""
_SIMULATED_SETS = 4000
_SIGN_SETS = 50_000  # a p near 0.05 has a standard error of 0.001
_LEVELS = np.geomspace(1.0, 1e-4, 251).tolist()  # of which a p after several looks is one; 0.05 is one nearly


class Interval(NamedTuple):
    """An estimate with its interval; ends are NaN where there is none, and infinite where they are beyond the data."""

    value: float
    low: float
    high: float


def mean_intervals(values: Array) -> tuple[Array, Array, Array]:
    """Return means over seeds, and their intervals by Student's t.

    Parameters
    ----------
    values
        Shape (S, X).

    Returns
    -------
    tuple of numpy.ndarray
        Means and both ends of their 95% intervals, each of shape (X,); the ends of a single seed are NaN.

    Notes
    -----
    mean -+ t(0.975, S - 1) s / sqrt(S), with the standard deviation s of S - 1 degrees of freedom (Student 1908).
    The intervals are pointwise: each covers the mean at its own place with 95%, not the whole curve.
    """
    mean = values.mean(axis=0)
    count = len(values)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def mean_interval(values: Array) -> Interval:
    """Return the mean of one number a seed, shape (S,), with its interval; see `mean_intervals`."""
    mean, low, high = mean_intervals(values[:, None])
    return Interval(float(mean[0]), float(low[0]), float(high[0]))


def areas(x: Array, values: Array) -> Array:
    """Return the area under each curve over the width: the mean height, in the unit of the metric.

    Parameters
    ----------
    x
        Shape (X,), ascending.
    values
        Shape (S, X).

    Returns
    -------
    numpy.ndarray
        Shape (S,), by the trapezoidal rule; of a single place, the values there.
    """
    if len(x) == 1:
        return values[:, 0]
    result: Array = np.sum((values[:, 1:] + values[:, :-1]) / 2 * np.diff(x), axis=1) / (x[-1] - x[0])
    return result


# -- paired tests ------------------------------------------------------------------------------------------------


def signed_rank(differences: Array) -> tuple[float, int]:
    """Return the two-sided p of Wilcoxon's signed-rank test, and the direction that the ranks speak for.

    Parameters
    ----------
    differences
        One a seed, shape (S,). Those that are zero are left out, as Wilcoxon did.

    Returns
    -------
    tuple
        p, and 1 where the positive ranks have the larger sum, -1 where the negative ones have, 0 where they are equal.

    Notes
    -----
    Exact for any number of seeds, with ties too: the distribution of the sum of the positive ranks, given the midranks
    of the absolute differences, where each sign has probability 1/2 (Wilcoxon 1945; for ties Pratt and Gibbons 1981).
    """
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0, 0
    doubled = _doubled_ranks(nonzero)
    total, positive = int(doubled.sum()), int(doubled[nonzero > 0].sum())
    return float(_p_of_sums(doubled)[positive]), (2 * positive > total) - (2 * positive < total)


def _doubled_ranks(differences: Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return twice the ranks of the absolute differences, as midranks are halves."""
    doubled: np.ndarray[Any, np.dtype[np.int64]] = np.rint(2 * stats.rankdata(np.abs(differences))).astype(np.int64)
    return doubled


def _p_of_sums(ranks: np.ndarray[Any, np.dtype[np.int64]]) -> Array:
    """Return the two-sided p of each sum of the ranks with a positive sign: shape (sum + 1,)."""
    probabilities = _rank_sums(ranks)
    below, above = np.cumsum(probabilities), np.cumsum(probabilities[::-1])[::-1]
    p: Array = np.minimum(1.0, 2 * np.minimum(below, above))
    return p


def _rank_sums(ranks: np.ndarray[Any, np.dtype[np.int64]]) -> Array:
    """Return the probability of each sum of the ranks with a positive sign: shape (sum + 1,)."""
    probabilities = np.zeros(int(ranks.sum()) + 1)
    probabilities[0] = 1.0
    for rank in ranks.tolist():
        shifted = np.zeros_like(probabilities)
        shifted[rank:] = probabilities[: len(probabilities) - rank]
        probabilities = (probabilities + shifted) / 2
    return probabilities


def typical_difference(differences: Array) -> Interval:
    """Return the pseudo-median of differences, with the interval that belongs to the signed-rank test.

    Parameters
    ----------
    differences
        One a seed, shape (S,), S of at least 1.

    Returns
    -------
    Interval
        The median of the means of all pairs of seeds, each seed with itself too. Its ends are NaN where S is below 6,
        since so few seeds give no interval of 95%.

    Notes
    -----
    The estimate of Hodges and Lehmann (1963, Ann. Math. Stat. 34, 598); the interval inverts the exact test
    (Hollander, Wolfe and Chicken 2014, Nonparametric Statistical Methods, 3.2-3.3), so it leaves out 0 where p is at
    most 0.05. One seed in which an arm fails moves it little, and moves the mean by as much as it likes.
    """
    count = len(differences)
    first, second = np.triu_indices(count)
    walsh = np.sort((differences[first] + differences[second]) / 2)
    below = np.cumsum(_rank_sums(np.arange(1, count + 1)))  # P(sum <= k)
    outside = int(np.searchsorted(below, (1 - LEVEL) / 2 + 1e-12, side="right"))  # sums in the lower tail
    middle = float(np.median(walsh))
    if not outside:
        return Interval(middle, math.nan, math.nan)
    return Interval(middle, float(walsh[outside - 1]), float(walsh[-outside]))


def far_from_the_others(differences: Array) -> list[int]:
    """Return the places of the differences that lie far below or above all others, the farthest first.

    Parameters
    ----------
    differences
        One a seed, shape (S,).

    Returns
    -------
    list of int
        At most a quarter of the seeds: those that are separated from the others by a gap of more than twice the range
        of these. Of normal differences there are some in 1% of sets of 8, and hardly any of more.
    """
    order = np.argsort(differences, kind="stable")
    gaps, count = np.diff(differences[order]), len(order)
    for far in range(count // 4, 0, -1):
        for below in range(far + 1):
            first, last = below, count - 1 - (far - below)  # of the others
            width = differences[order[last]] - differences[order[first]]
            beside = [*gaps[first - 1 : first], *gaps[last : last + 1]]
            if min(beside) > 2 * width > 0:
                places = [*order[:first].tolist(), *order[last + 1 :].tolist()]
                return sorted(places, key=lambda place: -abs(differences[place] - np.median(differences)))
    return []


class Looked(NamedTuple):
    """What a test of differences says that were looked at before, with fewer seeds.

    Parameters
    ----------
    p
        The smallest level at and above which this look, or one before, finds something; at least 0.0001.
    look
        The place of that look.
    """

    p: float
    look: int


def p_of_looks(differences: Array, looks: Sequence[Sequence[int]]) -> Looked:
    """Return the p of the signed-rank test of differences that are looked at again as seeds are added.

    Who adds seeds until something is found finds something too often: each look is a chance. So a look may spend a
    part of the level alone. After the look at n seeds, ``1 - (n1 / n)**2 / 3`` of it may be spent, with the n1 seeds of
    the first look: that spends two thirds, one at twice as many seeds a quarter more.

    Parameters
    ----------
    differences
        One a seed, shape (S,).
    looks
        The places of the differences that each look has seen, in the order of the looks; the last one is this one.

    Returns
    -------
    Looked
        Of a single look, the p of `signed_rank` times 1.5.

    Notes
    -----
    A group-sequential test whose level is spent over the looks (Lan and DeMets 1983, Biometrika 70, 659). That all
    looks have a common distribution is used: 50,000 draws of the signs, which are as likely one way as the other where
    choosing makes no difference, given the absolute differences.
    """
    seen: set[int] = set()
    sizes = [len(seen := seen | set(look)) for look in looks]
    allowed = [1 - (1 - FIRST_SHARE) * (sizes[0] / size) ** 2 for size in sizes]
    if len(looks) == 1:
        return Looked(min(1.0, signed_rank(differences[list(looks[0])])[0] / FIRST_SHARE), 0)
    signs = np.random.default_rng(0).integers(0, 2, (_SIGN_SETS, len(differences)), dtype=np.int8)
    signs = np.vstack([(differences > 0).astype(np.int8), signs])  # what was seen is one of the sets
    p = np.stack([_p_of_signs(differences, signs, list(look)) for look in looks])
    result = Looked(1.0, len(looks) - 1)
    for level in _LEVELS:  # downward, as a smaller level may find what a larger one doesn't: p values are discrete
        look = _finding_look(p, level * np.array(allowed))
        if look is None:
            break
        result = Looked(level, look)
    return result


def _p_of_signs(differences: Array, signs: np.ndarray[Any, np.dtype[np.int8]], look: list[int]) -> Array:
    """Return the p of the signed-rank test for each set of signs, shape (N, S), of the differences of a look: (N,)."""
    own = [place for place in look if differences[place] != 0]
    if not own:
        return np.ones(len(signs))
    doubled = _doubled_ranks(differences[own])
    p: Array = _p_of_sums(doubled)[signs[:, own].astype(np.int64) @ doubled]
    return p


def _finding_look(p: Array, spent: Array) -> int | None:
    """Return the first look at which the first set is found, where so much may be spent up to each; None for no look.

    `p` has the shape (looks, sets).
    """
    left, rejections = np.ones(p.shape[1], dtype=np.bool_), 0
    for look, own in enumerate(p):
        if look == 0:
            rejected = own <= spent[0] + 1e-12
        else:
            ordered, most = np.sort(own[left]), int(spent[look] * p.shape[1] + 1e-9) - rejections
            if most <= 0:
                continue
            rejected = left & (own < (ordered[most] if most < len(ordered) else 2.0))
        if rejected[0]:
            return look
        rejections += int(rejected.sum())
        left &= ~rejected
    return None


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, so that one false finding among all is as rare as one test's.

    Notes
    -----
    The k-th smallest of m is multiplied by m - k + 1, is at least the one before, and at most 1 (Holm 1979).
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, last = [0.0] * len(values), 0.0
    for k, place in enumerate(order):
        last = max(last, min(1.0, (len(values) - k) * values[place]))
        adjusted[place] = last
    return adjusted


def smallest_p(seeds: int) -> float:
    """Return the smallest p that `p_of_looks` can give at a first look: that of differences of one sign."""
    return min(1.0, 2.0 ** (1 - seeds) / FIRST_SHARE)


def seeds_needed(others: Sequence[int] = ()) -> int:
    """Return for how many seeds the smallest adjusted p of a comparison is at most `ALPHA`.

    Parameters
    ----------
    others
        How many seeds each of the other comparisons has. The adjustment is Holm's, with the smallest p that these can
        give.
    """
    seeds = 1
    while holm([smallest_p(seeds), *(smallest_p(other) for other in others)])[0] > ALPHA:
        seeds += 1
    return seeds


def detectable(differences: Array, alpha: float) -> Interval:
    """Return the typical difference that `signed_rank` would have found with power 0.8, as far as it can be told.

    Parameters
    ----------
    differences
        What was seen, one a seed, shape (S,), S of at least 2. Only their standard deviation is used.
    alpha
        The test finds something where its p is at most this.

    Returns
    -------
    Interval
        In the unit of the differences, with the 95% interval that the spread of so few seeds leaves; infinite where so
        few seeds can't find anything.

    Notes
    -----
    Sets of S normal differences are simulated, always the same 4000; the factor is the shift, in standard deviations,
    at which the exact test finds something in 80% of them, by bisection. The standard deviation s has the interval
    s sqrt((S - 1) / chi2(0.975, S - 1)) to s sqrt((S - 1) / chi2(0.025, S - 1)). It is a property of the test and of
    the spread, not of the difference that was seen.
    """
    count, deviation = len(differences), float(differences.std(ddof=1))
    is_detected = _p_of_sums(np.arange(1, count + 1)) <= alpha + 1e-12
    if not is_detected.any():
        return Interval(math.inf, math.inf, math.inf)
    noise = np.random.default_rng(0).standard_normal((_SIMULATED_SETS, count))
    low, high = 0.0, 10.0
    for _ in range(25):
        shift = (low + high) / 2
        shifted = noise + shift
        ranks = np.abs(shifted).argsort(axis=1).argsort(axis=1) + 1
        share = is_detected[(ranks * (shifted > 0)).sum(axis=1)].mean()
        low, high = (low, shift) if share >= POWER else (shift, high)
    tails = stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], count - 1)
    ends = (high * deviation * np.sqrt((count - 1) / tails)).tolist()
    return Interval(high * deviation, *ends)


# -- how many labels ---------------------------------------------------------------------------------------------


def first_reached(x: Array, values: Array, target: float) -> Array:
    """Return where curves first reach a target.

    Parameters
    ----------
    x
        Shape (X,), ascending.
    values
        Shape (S, X); higher is better.
    target
        The height to reach.

    Returns
    -------
    numpy.ndarray
        Shape (S,), linear between the places; ``x[0]`` where a curve begins there or above, infinite where it never
        comes there.
    """
    reached = values >= target
    place = reached.argmax(axis=1)
    rows = np.arange(len(values))
    before = np.maximum(place - 1, 0)
    height, below = values[rows, place], values[rows, before]
    rise = np.where(height > below, height - below, 1.0)
    crossing = x[before] + (x[place] - x[before]) * np.where(place > 0, (target - below) / rise, 0.0)
    result: Array = np.where(reached.any(axis=1), crossing, np.inf)
    return result


class Reached(NamedTuple):
    """How many labels the mean curve of an arm needs to reach a target.

    Parameters
    ----------
    labels
        The number, infinite where the mean curve never gets there, and its 95% interval.
    share
        The share of the resamples in which it gets there.
    seeds
        How many of the single seeds get there.
    """

    labels: Interval
    share: float
    seeds: int


def resampled_means(values: Array) -> Array:
    """Return the mean curves of `RESAMPLES` draws of seeds with replacement.

    Parameters
    ----------
    values
        Shape (S, X).

    Returns
    -------
    numpy.ndarray
        Shape (`RESAMPLES`, X). The draws depend on S alone, so arrays of the same seeds are resampled together: paired.
    """
    count = len(values)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    result: Array = weights @ values
    return result


def labels_to_reach(x: Array, values: Array, target: float) -> Reached:
    """Return how many labels the mean curve needs to reach a target, with a bootstrap interval over the seeds.

    Notes
    -----
    Percentile intervals (Efron 1979), expanded for few seeds (Hesterberg 2015). A resample that never gets there counts
    as infinite, so that the upper end is infinite where that happens in many of them. A single seed has no interval.
    """
    reached = first_reached(x, values.mean(axis=0, keepdims=True), target)[0]
    seeds = int(np.isfinite(first_reached(x, values, target)).sum())
    if len(values) < 2:
        return Reached(Interval(float(reached), math.nan, math.nan), float(np.isfinite(reached)), seeds)
    resampled = first_reached(x, resampled_means(values), target)
    low, high = _percentiles(resampled, len(values))
    return Reached(Interval(float(reached), low, high), float(np.isfinite(resampled).mean()), seeds)


def labels_saved(x: Array, values: Array, other: Array, target: float) -> Interval:
    """Return how many labels fewer the mean curve of `values` needs than that of `other` to reach a target.

    Parameters
    ----------
    x
        Shape (X,), ascending.
    values, other
        Shape (S, X) each, of the same seeds.
    target
        The height to reach.

    Returns
    -------
    Interval
        Negative where it needs more. A curve that never gets there counts with ``x[-1]``, so that the number is a bound
        then: at least so many are saved where `other` doesn't get there, at least so many are lost where `values`
        doesn't. NaN where neither gets there. The interval is a paired bootstrap over the seeds; see `labels_to_reach`.
    """

    def needed(curves: Array) -> Array:
        return first_reached(x, curves, target)

    means = needed(values.mean(axis=0, keepdims=True)), needed(other.mean(axis=0, keepdims=True))
    if not np.isfinite(means).any():
        return Interval(math.nan, math.nan, math.nan)
    last = x[-1]
    value = float((np.minimum(means[1], last) - np.minimum(means[0], last))[0])
    if len(values) < 2:
        return Interval(value, math.nan, math.nan)
    saved = np.minimum(needed(resampled_means(other)), last) - np.minimum(needed(resampled_means(values)), last)
    return Interval(value, *_percentiles(saved, len(values)))


def _percentiles(values: Array, seeds: int) -> tuple[float, float]:
    """Return both ends of the interval of resampled values, each one of the values, which may be infinite.

    Plain percentiles of few seeds are too narrow: their spread divides by S, not S - 1, and they know nothing of
    Student's t. So the tails are those of the normal distribution beyond sqrt(S / (S - 1)) t(0.975, S - 1): the
    expanded percentile interval (Hesterberg 2015, The American Statistician 69, 371).
    """
    ordered = np.sort(values)
    tail = stats.norm.sf(math.sqrt(seeds / (seeds - 1)) * stats.t.ppf((1 + LEVEL) / 2, seeds - 1))
    low, high = math.floor(tail * len(ordered)), math.ceil((1 - tail) * len(ordered)) - 1
    return float(ordered[low]), float(ordered[high])
