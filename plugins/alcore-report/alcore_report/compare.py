"""Compare arms: curves, areas, labels to close the gap, tests, and a verdict in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from alcore.errors import UsageError, did_you_mean
from alcore_report import statistics as st
from alcore_report.curves import Curve, Found, lower_is_better, metric_name, points_of
from alcore_report.statistics import Array, Interval, Reached
from alcore_report.words import counted

PARTS = (0.5, 0.75, 0.9, 0.95)
"""The parts of the gap between start and ceiling."""
_MOST_PLACES = 400
Outcome = Literal["better", "worse", "no difference found", "too few seeds"]


@dataclasses.dataclass(frozen=True)
class ArmCurve:
    """One arm on the places that all arms share.

    Parameters
    ----------
    arm
        Its name.
    seeds
        The seeds, ascending.
    values
        Shape (S, X): the metric of each seed.
    mean, low, high
        Shape (X,) each: the mean over the seeds and its 95% interval, NaN for a single seed.
    area, final
        Mean over the seeds of the area under the curve and of the last value.
    """

    arm: str
    seeds: tuple[int, ...]
    values: Array
    mean: Array
    low: Array
    high: Array
    area: Interval
    final: Interval


@dataclasses.dataclass(frozen=True)
class Gap:
    """What lies between the start and the ceiling.

    Parameters
    ----------
    start
        Mean of the first values of all arms.
    ceiling
        Mean of the last values of the ceiling; without one, the best mean of the last values.
    of
        Whose value the ceiling is.
    measured
        Whether it was measured by a ceiling; False where it is the best arm's.
    """

    start: float
    ceiling: float
    of: str
    measured: bool


@dataclasses.dataclass(frozen=True)
class Target:
    """How many labels an arm needs to close a part of the gap.

    Parameters
    ----------
    part
        The part, from 0 to 1.
    height
        The value of the metric there.
    reached
        By the arm.
    saved
        Labels that it saves against the baseline on the seeds that both have; None for the baseline itself.
    """

    part: float
    height: float
    reached: Reached
    saved: Interval | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an arm is better than the baseline.

    Parameters
    ----------
    outcome
        What the test says.
    difference
        The typical difference (`alcore_report.statistics.typical_difference`) of area and area of the baseline, over
        the seeds that both have, in the unit of the metric. It is what the test is of.
    seeds
        How many these are.
    p, adjusted_p
        Of the signed-rank test of these seeds, and for the number of arms (Holm) and of looks.
    looks
        How many seeds each look has had that counts, this one last.
    smallest_p
        The smallest adjusted p that so many seeds can give at a first look.
    detectable
        The typical difference that would have been found with power 0.8; None where it has no use or can't be told.
    far
        The seeds whose difference lies far from all others, the farthest first, each with its difference.
    sentence
        All of it in words.
    """

    outcome: Outcome
    difference: Interval
    seeds: int
    p: float
    adjusted_p: float
    looks: tuple[int, ...]
    smallest_p: float
    detectable: Interval | None
    far: tuple[tuple[int, float], ...]
    sentence: str


@dataclasses.dataclass(frozen=True)
class Axis:
    """The comparison over labels, or over cost.

    Parameters
    ----------
    name
        ``"labels"`` or ``"cost"``.
    x
        Shape (X,): the places that all curves cover, ascending.
    arms
        The arms by name, the baseline last.
    gap
        Between start and ceiling; None where the ceiling is not better than the start.
    targets
        By arm.
    verdicts
        By arm, without the baseline.
    """

    name: str
    x: Array
    arms: dict[str, ArmCurve]
    gap: Gap | None
    targets: dict[str, list[Target]]
    verdicts: dict[str, Verdict]

    def tested(self) -> dict[str, list[int]]:
        """Return the seeds of each arm that was tested against the baseline: those that both have."""
        *_, base = self.arms.values()
        return {
            arm: _shared_seeds(self.arms[arm], base)
            for arm, verdict in self.verdicts.items()
            if verdict.outcome != "too few seeds"
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Arms compared by one metric.

    Parameters
    ----------
    metric
        Its full name.
    lower
        Whether lower is better.
    on
        What it was measured on, as the records say.
    baseline
        The arm that the others are compared with; None where there is one arm.
    ceiling
        Mean and interval of the last values of the ceiling; None where there is none.
    ceiling_labels
        How many labels it was trained on, in the mean.
    ceiling_seeds
        How many runs it is the mean of.
    axes
        Over labels, and over cost where costs differ.
    left_out
        The runs that are not in it, and why.
    notes
        What the reader has to know.
    curves
        What was compared, the ceiling with it.
    """

    metric: str
    lower: bool
    on: tuple[str, ...]
    baseline: str | None
    ceiling: Interval | None
    ceiling_labels: float
    ceiling_seeds: int
    axes: list[Axis]
    left_out: list[tuple[str, str]]
    notes: list[str]
    curves: list[Curve]

    @property
    def short(self) -> str:
        """The name of the metric without that of its strategy."""
        return self.metric.rpartition(".")[2]


def compare_curves(
    collected: Found,
    *,
    metric: str | None = None,
    lower: bool | None = None,
    baseline: str | None = None,
    ceiling: str | None = None,
) -> Comparison:
    """Compare the arms of curves.

    Parameters
    ----------
    found
        The curves.
    metric
        The metric; a usual one that was measured where it is None.
    lower
        Whether lower is better; by the name of the metric where it is None.
    baseline
        The arm to compare with; else the one that a benchmark says, ``random``, or the first.
    ceiling
        The arm that was trained on all labels; else the one that a benchmark says, or ``ceiling``.

    Raises
    ------
    UsageError
        If there is nothing to compare, or an arm or the metric does not exist.
    """
    if not collected.curves:
        reasons = "".join(f"\n- {name}: {why}" for name, why in collected.left_out)
        raise UsageError("there is no finished run to compare" + (f":{reasons}" if reasons else "."))
    metric = metric_name(collected.curves, metric)
    lower = lower_is_better(metric) if lower is None else lower
    left_out, curves = list(collected.left_out), list[Curve]()
    for curve in collected.curves:
        try:
            points_of(curve, metric, over_cost=False)
            curves.append(curve)
        except UsageError as error:
            left_out.append((curve.source, str(error)))
    names = list(dict.fromkeys(curve.arm for curve in curves))
    top = _arm(ceiling, "--ceiling-arm", names, collected.ceiling, "ceiling")
    names = [name for name in names if name != top]
    if not names:
        raise UsageError("there is only a ceiling; name the runs to compare with it too.")
    base = _arm(baseline, "--baseline", names, collected.baseline, "random") or names[0]
    names = [*(name for name in names if name != base), base]  # the baseline last
    groups = {name: sorted((c for c in curves if c.arm == name), key=lambda c: c.seed) for name in names}
    tops = [curve for curve in curves if curve.arm == top]
    last = [points_of(curve, metric, over_cost=False) for curve in tops]
    at_ceiling = st.mean_interval(np.array([values[-1] for _, values in last])) if last else None
    axes = [_axis("labels", groups, metric, lower, base, at_ceiling, top, collected.looks)]
    if _costs_differ(curve for group in groups.values() for curve in group):
        axes.append(_axis("cost", groups, metric, lower, base, at_ceiling, top, collected.looks))
    return Comparison(
        metric,
        lower,
        tuple(dict.fromkeys(place for curve in curves for place in curve.on)),
        base if len(names) > 1 else None,
        at_ceiling,
        float(np.mean([x[-1] for x, _ in last])) if last else math.nan,
        len(last),
        axes,
        left_out,
        _notes(groups, base),
        curves,
    )


def _arm(wanted: str | None, flag: str, names: Sequence[str], told: str | None, usual: str) -> str | None:
    """Return the arm of a role: as the user says, else as a benchmark says, else by its usual name, else None."""
    if wanted is not None and wanted not in names:
        raise UsageError(f"{flag} {wanted}: there is no such arm: {did_you_mean(wanted, names)}.")
    return wanted or next((name for name in (told, usual) if name in names), None)


def _costs_differ(curves: Any) -> bool:
    """Return whether the labels of any curve cost something else than 1 each; False where a cost is not known."""
    shown = list(curves)
    if any(curve.cost is None for curve in shown):
        return False
    return any(not np.allclose(curve.cost - curve.cost[0], curve.labels - curve.labels[0]) for curve in shown)


def _notes(groups: Mapping[str, list[Curve]], base: str) -> list[str]:
    notes = []
    data = {curve.seed: curve.data for curve in groups[base]}
    for name, group in groups.items():
        others = [c.seed for c in group if c.data and data.get(c.seed, c.data) not in ("", c.data)]
        if others:
            notes.append(
                f"{name} and {base} did not begin from the same data and labels at seed "
                f"{', '.join(map(str, others[:5]))}, so they are paired in name only."
            )
    return notes


def _axis(
    name: str,
    groups: Mapping[str, list[Curve]],
    metric: str,
    lower: bool,
    base: str,
    ceiling: Interval | None,
    top: str | None,
    looks: Mapping[str, Sequence[Sequence[int]]],
) -> Axis:
    points = {arm: [points_of(c, metric, over_cost=name == "cost") for c in group] for arm, group in groups.items()}
    x = _shared_places([x for curves in points.values() for x, _ in curves], name)
    arms = {
        arm: _arm_curve(arm, groups[arm], np.array([np.interp(x, *curve) for curve in curves]), x)
        for arm, curves in points.items()
    }
    gap = _gap(arms, lower, ceiling, top)
    targets = {arm: _targets(x, own, arms[base], gap, lower) for arm, own in arms.items()} if gap else {}
    verdicts = _verdicts(name, x, arms, base, lower, gap, targets, metric.rpartition(".")[2], looks)
    return Axis(name, x, arms, gap, targets, verdicts)


def _shared_places(all_places: Sequence[Array], name: str) -> Array:
    """Return where any curve was measured, within what all of them cover; at most 400 places."""
    low, high = max(x[0] for x in all_places), min(x[-1] for x in all_places)
    if low > high:
        raise UsageError(
            f"the curves share no number of {name}: one begins at {low:g}, and another one ends at {high:g}; compare "
            "runs that overlap."
        )
    x = np.unique(np.concatenate(all_places))
    x = x[(x >= low) & (x <= high)]
    return x if len(x) <= _MOST_PLACES else np.linspace(low, high, _MOST_PLACES)


def _arm_curve(arm: str, group: Sequence[Curve], values: Array, x: Array) -> ArmCurve:
    area, final = st.mean_interval(st.areas(x, values)), st.mean_interval(values[:, -1])
    return ArmCurve(arm, tuple(curve.seed for curve in group), values, *st.mean_intervals(values), area, final)


def _gap(arms: Mapping[str, ArmCurve], lower: bool, ceiling: Interval | None, top: str | None) -> Gap | None:
    sign = -1.0 if lower else 1.0
    start = float(np.mean([arm.mean[0] for arm in arms.values()]))
    best = max(arms.values(), key=lambda arm: sign * arm.final.value)
    if ceiling is None:
        gap = Gap(start, best.final.value, best.arm, False)
    else:
        gap = Gap(start, ceiling.value, top or "ceiling", True)
    return gap if sign * (gap.ceiling - gap.start) > 0 else None


def _targets(x: Array, arm: ArmCurve, base: ArmCurve, gap: Gap, lower: bool) -> list[Target]:
    sign = -1.0 if lower else 1.0
    targets = []
    own, its = _matched(arm, base)
    for part in PARTS:
        height = gap.start + part * (gap.ceiling - gap.start)
        reached = st.labels_to_reach(x, sign * arm.values, sign * height)
        saved = None
        if arm is not base and len(own):
            saved = st.labels_saved(x, sign * own, sign * its, sign * height)
        targets.append(Target(part, height, reached, saved))
    return targets


def _matched(arm: ArmCurve, base: ArmCurve) -> tuple[Array, Array]:
    """Return the values of the seeds that both have, in the same order."""
    both = _shared_seeds(arm, base)
    return arm.values[[arm.seeds.index(s) for s in both]], base.values[[base.seeds.index(s) for s in both]]


def _shared_seeds(arm: ArmCurve, base: ArmCurve) -> list[int]:
    return [seed for seed in arm.seeds if seed in base.seeds]


# -- verdicts ----------------------------------------------------------------------------------------------------


def _verdicts(
    axis: str,
    x: Array,
    arms: Mapping[str, ArmCurve],
    base: str,
    lower: bool,
    gap: Gap | None,
    targets: Mapping[str, list[Target]],
    metric: str,
    looks: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, Verdict]:
    others = [arm for name, arm in arms.items() if name != base]
    shared = [_shared_seeds(other, arms[base]) for other in others]
    differences = []
    for other in others:
        own, its = _matched(other, arms[base])
        differences.append(st.areas(x, own) - st.areas(x, its))
    counted_looks = [_looks(looks.get(arm.arm, ()), seeds) for arm, seeds in zip(others, shared, strict=True)]
    tests = [
        st.p_of_looks(difference, places) if len(difference) else st.Looked(1.0, 0)
        for difference, places in zip(differences, counted_looks, strict=True)
    ]
    adjusted = st.holm([test.p for test in tests])
    least = st.holm([st.smallest_p(len(difference)) for difference in differences])
    verdicts = {}
    for place, (arm, difference) in enumerate(zip(others, differences, strict=True)):
        seen = counted_looks[place]
        p, ranks = st.signed_rank(difference[seen[tests[place].look]] if len(difference) else difference)
        direction = -ranks if lower else ranks
        outcome: Outcome
        detectable = None
        if least[place] > st.ALPHA or len(difference) < 2:
            outcome = "too few seeds"
        elif adjusted[place] <= st.ALPHA:
            outcome = "better" if direction > 0 else "worse"
        else:
            outcome = "no difference found"
            shift = st.detectable(difference, st.FIRST_SHARE * st.ALPHA / len(others))
            detectable = shift if math.isfinite(shift.value) and np.ptp(difference) > 0 else None
        typical = st.typical_difference(difference) if len(difference) else Interval(math.nan, math.nan, math.nan)
        verdict = Verdict(
            outcome,
            typical,
            len(difference),
            p,
            adjusted[place],
            tuple(map(len, seen)),
            least[place],
            detectable,
            tuple((shared[place][far], float(difference[far])) for far in st.far_from_the_others(difference)),
            "",
        )
        if outcome == "too few seeds":
            counts = [len(paired) for paired in differences if paired is not difference]
            sentence = _too_few(arm, arms[base], verdict, counts)
        else:
            comparisons = len(others)
            sentence = _sentence(axis, arm.arm, base, verdict, metric, gap, targets, comparisons, difference, x[-1])
        verdicts[arm.arm] = dataclasses.replace(verdict, sentence=sentence)
    return verdicts


def _looks(before: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[list[int]]:
    """Return the places of the seeds that each look has seen, this one last; a look at the same seeds is the same."""
    places = {seed: place for place, seed in enumerate(seeds)}
    looks = [tuple(sorted(places[seed] for seed in look if seed in places)) for look in before]
    earlier = [list(look) for look in dict.fromkeys(looks) if 0 < len(look) < len(seeds)]
    return [*earlier, list(range(len(seeds)))]


def _too_few(arm: ArmCurve, base: ArmCurve, verdict: Verdict, others: Sequence[int]) -> str:
    """Say how many seeds an arm needs, beside other arms with so many seeds each that they share with the baseline."""
    seeds = counted(verdict.seeds, "seed")
    shared = " in common" if verdict.seeds < min(len(arm.seeds), len(base.seeds)) else ""
    arms = f" and {len(others) + 1} comparisons" if others else ""
    return (
        f"Too few seeds to tell whether {arm.arm} is better than {base.arm}: with {seeds}{shared}{arms} no p below "
        f"{verdict.smallest_p:.2g} is possible; {st.seeds_needed(others)} seeds are needed at least."
    )


def _sentence(
    axis: str,
    arm: str,
    base: str,
    verdict: Verdict,
    metric: str,
    gap: Gap | None,
    targets: Mapping[str, list[Target]],
    comparisons: int,
    differences: Array,
    end: float,
) -> str:
    seeds = counted(verdict.seeds, "seed")
    if not differences.any():
        return f"No difference found between {arm} and {base}: their curves have the same area at each of {seeds}."
    before = verdict.looks[:-1]
    looked = f" after {'a look' if len(before) == 1 else 'looks'} at {_list(before)}" if before else ""
    several = f" for {comparisons} comparisons" if comparisons > 1 else ""
    tested = f"p = {number(verdict.adjusted_p, 2)}{several}, {seeds}{looked}"
    low, high = (number(value, 3) for value in verdict.difference[1:])
    if verdict.outcome == "no difference found":
        power = "which difference would have been found can't be told of these seeds"
        if verdict.detectable is not None:
            most = (number(value, 2) for value in verdict.detectable[1:])
            power = f"a difference between {' and '.join(most)} would have been found with power {st.POWER:g}"
        text = (
            f"No difference found between {arm} and {base} ({tested}): in a typical seed the mean {metric} along the "
            f"curve differs by {number(verdict.difference.value, 3)} ({low} to {high}); {power}."
        )
        return text + _far(arm, base, verdict)
    if verdict.difference.value:
        side = "higher" if verdict.difference.value > 0 else "lower"
        ends = sorted(abs(value) for value in verdict.difference[1:])
        crosses = verdict.difference.low * verdict.difference.high < 0
        interval = f"{low} to {high}" if crosses else f"{number(ends[0], 3)} to {number(ends[1], 3)}"
        much = f"{number(abs(verdict.difference.value), 3)} {side} ({interval}; {tested})"
        text = f"{arm} is {verdict.outcome} than {base}: in a typical seed its mean {metric} along the curve is {much}."
    else:
        text = (
            f"{arm} is {verdict.outcome} than {base} at the {np.count_nonzero(differences)} of {seeds} at which their "
            f"curves differ ({tested})."
        )
    return text + _far(arm, base, verdict) + ("" if gap is None else _needed(axis, arm, base, gap, targets, end))


def _far(arm: str, base: str, verdict: Verdict) -> str:
    """Name the seeds whose differences lie far from the others, with their differences."""
    if not verdict.far:
        return ""
    seeds = [
        f"{seed} ({number(abs(difference), 3)} {'higher' if difference > 0 else 'lower'} than {base})"
        for seed, difference in verdict.far
    ]
    return f" Far from the others {'is seed' if len(seeds) == 1 else 'are seeds'} {_list(seeds)}: look at {arm} there."


def _list(items: Sequence[Any]) -> str:
    """Return items as words: ``8``, ``8 and 12``, ``8, 10 and 12``."""
    words = [str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _needed(axis: str, arm: str, base: str, gap: Gap, targets: Mapping[str, list[Target]], end: float) -> str:
    """Say what both need for the largest part of the gap that either reaches in the mean, up to the last place."""
    pairs = list(zip(targets.get(arm, []), targets.get(base, []), strict=True))
    by = f"by {end:.0f} labels" if axis == "labels" else f"by a cost of {end:.0f}"
    for own, its in reversed(pairs):
        mine, other = own.reached.labels.value, its.reached.labels.value
        if not (math.isfinite(mine) or math.isfinite(other)):
            continue
        part = f"{own.part:.0%} of the gap to the {'ceiling' if gap.measured else 'best final mean'}"
        form = "with {:.0f} labels" if axis == "labels" else "at a cost of {:.0f}"
        words = [form.format(count) if math.isfinite(count) else "" for count in (mine, other)]
        if all(words):
            return f" It closes {part} {words[0]}, {base} {words[1]}."
        if words[0]:
            return f" It closes {part} {words[0]}, {base} does not get there {by}."
        return f" It does not close {part} {by}, {base} does {words[1]}."
    return ""


def number(value: float, digits: int) -> str:
    """Return a number for a sentence or a table, with so many significant digits; ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 1e-4 or abs(value) >= 1e6 else _plain(value, digits)


def _plain(value: float, digits: int) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


# -- as JSON -----------------------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data; what is NaN or infinite is None."""
    return {
        "metric": comparison.metric,
        "lower_is_better": comparison.lower,
        "measured_on": list(comparison.on),
        "baseline": comparison.baseline,
        "ceiling": comparison.ceiling and {
            **_plain_data(comparison.ceiling), "labels": _plain_data(comparison.ceiling_labels),
            "seeds": comparison.ceiling_seeds,
        },
        "axes": [
            {
                "over": axis.name,
                "x": _plain_data(axis.x),
                "arms": {
                    name: {
                        "seeds": list(arm.seeds),
                        **{part: _plain_data(getattr(arm, part)) for part in ("mean", "low", "high", "area", "final")},
                        "to_close": [_plain_data(target) for target in axis.targets.get(name, [])],
                    }
                    for name, arm in axis.arms.items()
                },
                "gap": _plain_data(axis.gap),
                "verdicts": {name: _plain_data(verdict) for name, verdict in axis.verdicts.items()},
            }
            for axis in comparison.axes
        ],
        "left_out": [{"run": name, "reason": why} for name, why in comparison.left_out],
        "notes": comparison.notes,
    }  # fmt: skip


def _plain_data(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain_data(item) for item in value.tolist()]
    if isinstance(value, Interval | Reached):
        return {name: _plain_data(item) for name, item in value._asdict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
