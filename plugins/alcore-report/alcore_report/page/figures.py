"""The figures of a page about a run."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from alcore_report.page.canvas import HATCHES, Axes, Figure, Palette, label_ends
from alcore_report.page.facts import Facts
from alcore_report.page.samples import (
    PoolMap,
    SamplePredictions,
    Samples,
    calibration,
    calibration_error,
    is_field,
    regression_values,
    relative_errors,
    spaced,
)
from alcore_report.words import duration

MOST_ROWS = 100
"""Of a table of numbers."""
MOST_METRICS = 12
_MOST_POINTS = 300  # of a curve
_MOST_CLASSES = 12
_MOST_LINES = 4  # of losses, and of strategies with scores
_MARKED = 10  # markers on a curve
_TITLES = {"validation": "held-out samples", "pool": "all samples of the pool", "train": "labeled samples"}


def place_name(on: str) -> str:
    """Return in words what was measured on."""
    return _TITLES.get(on, on)


def short_number(value: float | None) -> str:
    """Return a number with four significant digits; a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def exact(value: float | int | None) -> str:
    """Return a number as it can be read back."""
    return "-" if value is None else repr(value) if isinstance(value, int) else f"{value:.6g}"


def _thin(rows: list[Any], most: int = MOST_ROWS) -> list[Any]:
    return [rows[place] for place in spaced(len(rows), most)]


def _marks(count: int) -> dict[str, Any]:
    return {"markevery": max(1, count // _MARKED)}


def metric_figures(facts: Facts) -> list[Figure]:
    """Return the curve of each metric, the one that matters most first; at most twelve."""
    return [figure for metric in facts.metrics[:MOST_METRICS] if (figure := _metric(facts, metric)) is not None]


def _metric(facts: Facts, metric: str) -> Figure | None:
    curve = facts.curve(metric)
    if not curve:
        return None
    name = facts.short(metric)
    by_labels = all(labels is not None for _, labels, _ in curve)
    shown = _thin(curve, _MOST_POINTS)
    x = [labels if by_labels else step for step, labels, _ in shown]
    values = [value for *_, value in curve]
    best = (min if facts.lower(metric) else max)(curve, key=lambda point: point[2])
    unit = "labeled samples" if by_labels else "steps"
    better = "lower" if facts.lower(metric) else "higher"

    def draw(axes: Axes, palette: Palette) -> None:
        axes.plot(x, [value for *_, value in shown], **palette.line(0), **_marks(len(shown)))
        axes.set_xlabel("labeled samples" if by_labels else "step")
        axes.set_ylabel(f"{name} ({better} is better)")
        axes.margins(x=0.03, y=0.1)

    at = best[1] if by_labels else best[0]
    first, last = curve[0], curve[-1]
    alt = (
        f"{name} goes from {short_number(values[0])} at {first[1] if by_labels else first[0]} {unit} to "
        f"{short_number(values[-1])} at {last[1] if by_labels else last[0]}; its best value is {short_number(best[2])} "
        f"at {at}."
    )
    rows = [[str(step), exact(labels), exact(value)] for step, labels, value in _thin(curve)]
    return Figure(_key("metric", metric), name, draw, alt, ("step", "labeled samples", name), rows, _left_out(curve))


def _left_out(rows: list[Any]) -> str:
    return f"The table has {MOST_ROWS} of {len(rows)} rows." if len(rows) > MOST_ROWS else ""


def _more_lines(count: int, what: str) -> str:
    return f"The first {_MOST_LINES} of {count} {what} are drawn." if count > _MOST_LINES else ""


def _key(kind: str, name: str) -> str:
    return f"{kind}-" + "".join(
        character if character.isascii() and character.isalnum() else f"_{ord(character):x}" for character in name
    )


def loss_figure(facts: Facts) -> Figure | None:
    """Return the losses at the end of each step's training."""
    every = list(dict.fromkeys(name for step in facts.steps for name in step.get("losses", {})))
    names = every[:_MOST_LINES]
    curves = {
        name: [
            (step["step"], step["losses"][name]) for step in facts.steps if _finite(step.get("losses", {}).get(name))
        ]
        for name in names
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None

    def draw(axes: Axes, palette: Palette) -> None:
        for place, curve in enumerate(curves.values()):
            shown = _thin(curve, _MOST_POINTS)
            axes.plot(*zip(*shown, strict=True), **palette.line(place), **_marks(len(shown)))
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        if len(curves) > 1:
            label_ends(axes, palette, [(*curve[-1], name) for name, curve in curves.items()])

    alt = " ".join(
        f"{name} goes from {short_number(curve[0][1])} to {short_number(curve[-1][1])}."
        for name, curve in curves.items()
    )
    rows = [
        [str(row["step"]), *(exact(row["losses"].get(name)) for name in curves)] for row in _thin(_with_losses(facts))
    ]
    note = " ".join(filter(None, [_more_lines(len(every), "losses"), _left_out(_with_losses(facts))]))
    return Figure("loss", "Training loss", draw, alt, ("step", *curves), rows, note)


def _with_losses(facts: Facts) -> list[dict[str, Any]]:
    return [step for step in facts.steps if step.get("losses")]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def class_figure(samples: Samples) -> Figure | None:
    """Return the shares of the classes in what was picked, and in what is measured on."""
    if not samples.classes:
        return None
    counts = Counter(samples.classes.values())
    share = samples.pool_share
    size = max([*counts, len(share) - 1 if share is not None else 0]) + 1
    order = sorted(range(size), key=lambda code: (-counts[code], code)) if size > _MOST_CLASSES else list(range(size))
    shown, total = order[:_MOST_CLASSES], len(samples.classes)
    picked = [counts[code] / total for code in shown]
    usual = None if share is None else [float(share[code]) if code < len(share) else 0.0 for code in shown]
    names = [samples.class_name(code) for code in shown]

    def draw(axes: Axes, palette: Palette) -> None:
        places = np.arange(len(shown))
        height = 0.38 if usual is not None else 0.6
        top = places - (height / 2 if usual is not None else 0)
        axes.barh(top, picked, height, color=palette.series[0], label="picked")
        if usual is not None:
            axes.barh(places + height / 2, usual, height, color="none", edgecolor=palette.ink, label="measured on")
            axes.legend(
                frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2
            )
        for place, value, number in zip(top, picked, shown, strict=True):
            axes.annotate(f" {counts[number]}", (value, place), va="center", fontsize=8, color=palette.ink)
        axes.set_yticks(places, [_clip(name, 14) for name in names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("share of samples")

    rows = [
        [name, str(counts[code]), f"{counts[code] / total:.1%}", "-" if usual is None else f"{usual[place]:.1%}"]
        for place, (code, name) in enumerate(zip(shown, names, strict=True))
    ]
    alt = f"Of {total} labeled picks " + ", ".join(f"{row[2]} are {row[0]}" for row in rows[:6]) + "."
    note = f"The {_MOST_CLASSES} classes that were picked most, of {size}." if size > _MOST_CLASSES else ""
    height = max(2.0, 0.9 + 0.32 * len(shown))
    return Figure(
        "classes", "Classes of what was picked", draw, alt, ("class", "picked", "share", "measured on"), rows, note,
        height=height,
    )  # fmt: skip


def class_history_figure(samples: Samples, facts: Facts) -> Figure | None:
    """Return how the shares of the classes in what was picked change with the steps; for at most six classes."""
    by_step: dict[int, Counter[int]] = {}
    for request in facts.labeled:
        if request["id"] in samples.classes:
            by_step.setdefault(request["step"], Counter())[samples.classes[request["id"]]] += 1
    codes = sorted({code for counts in by_step.values() for code in counts})
    if len(by_step) < 3 or not 2 <= len(codes) <= 6:
        return None
    steps, so_far, shares = sorted(by_step), Counter[int](), []
    for step in steps:
        so_far.update(by_step[step])
        total = so_far.total()
        shares.append([so_far[code] / total for code in codes])
    table = np.array(shares)
    kept = spaced(len(steps), _MOST_POINTS)

    def draw(axes: Axes, palette: Palette) -> None:
        for place in range(len(codes)):
            axes.plot(np.array(steps)[kept], table[kept, place], **palette.line(place), **_marks(len(kept)))
        axes.set_xlabel("step")
        axes.set_ylabel("share of all picks so far")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_ylim(bottom=0)
        ends = [
            (steps[-1], float(table[-1, place]), _clip(samples.class_name(code), 14))
            for place, code in enumerate(codes)
        ]
        label_ends(axes, palette, ends)

    names = [samples.class_name(code) for code in codes]
    rows = _thin([[str(step), *(f"{cell:.1%}" for cell in row)] for step, row in zip(steps, shares, strict=True)])
    alt = "; ".join(f"{name} from {table[0, i]:.0%} to {table[-1, i]:.0%}" for i, name in enumerate(names))
    return Figure(
        "class-history", "Classes picked up to each step", draw, alt, ("step", *names), rows, _left_out(steps)
    )


def score_figure(facts: Facts) -> Figure | None:
    """Return the scores by which samples were picked, by step: the median, and from the lowest to the highest."""
    groups: dict[str, dict[int, list[float]]] = {}
    for request in facts.requests:
        if _finite(request["score"]):
            groups.setdefault(request["strategy"], {}).setdefault(request["step"], []).append(float(request["score"]))
    if not groups:
        return None
    names = list(groups)[:_MOST_LINES]
    rows = [
        [str(step), name, exact(min(scores)), exact(float(np.median(scores))), exact(max(scores)), str(len(scores))]
        for name in names
        for step, scores in sorted(groups[name].items())
    ]

    def draw(axes: Axes, palette: Palette) -> None:
        ends = []
        for place, name in enumerate(names):
            steps = np.array(sorted(groups[name]))
            kept = steps[spaced(len(steps), _MOST_POINTS)]
            low, middle, high = np.array(
                [(min(s), float(np.median(s)), max(s)) for s in (groups[name][place] for place in kept.tolist())]
            ).T
            style = palette.line(place)
            axes.fill_between(kept, low, high, color=style["color"], alpha=0.18, linewidth=0)
            for edge in (low, high):
                axes.plot(kept, edge, color=style["color"], linewidth=0.7, linestyle=style["linestyle"])
            axes.plot(kept, middle, **style, **_marks(len(kept)))
            ends.append((float(kept[-1]), float(middle[-1]), _clip(name, 16)))
        axes.set_xlabel("step")
        axes.set_ylabel("score")
        if len(names) > 1:
            label_ends(axes, palette, ends)

    first, last = rows[0], rows[-1]
    alt = (
        f"Median score from {short_number(float(first[3]))} in step {first[0]} to {short_number(float(last[3]))} "
        f"in step {last[0]}."
    )
    note = "Line: median of a step's picks; band: lowest to highest. The scale is that of the strategy. "
    return Figure(
        "scores", "Scores of what was picked", draw, alt, ("step", "strategy", "lowest", "median", "highest", "picks"),
        _thin(rows), note + " ".join(filter(None, [_more_lines(len(groups), "strategies"), _left_out(rows)])),
    )  # fmt: skip


def time_figure(facts: Facts) -> Figure | None:
    """Return how long each phase took, in all steps and from step to step."""
    if not facts.steps or not facts.phases:
        return None
    totals = {phase: facts.seconds(phase) for phase in facts.phases}
    size = -(-len(facts.steps) // 40)
    bins = [range(start, min(start + size, len(facts.steps))) for start in range(0, len(facts.steps), size)]
    x = np.array([facts.steps[bin_[0]]["step"] for bin_ in bins])
    edges = np.append(x, facts.steps[-1]["step"] + 1)

    def draw(axes: Axes, palette: Palette) -> None:
        base = np.zeros(len(bins))
        for place, phase in enumerate(facts.phases):
            means = np.array([np.mean([facts.steps[i]["seconds"].get(phase, 0.0) for i in bin_]) for bin_ in bins])
            axes.stairs(
                base + means, edges, baseline=base, fill=True, facecolor=palette.series[place % 6], linewidth=0,
                edgecolor=palette.paper, hatch=HATCHES[place % len(HATCHES)],
                label=f"{phase}: {duration(totals[phase])}",
            )  # fmt: skip
            base += means
        axes.set_xlabel("step")
        axes.set_ylabel("seconds a step")
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)

    total = math.fsum(totals.values())
    rows = [
        [phase, exact(seconds), f"{seconds / total:.1%}" if total else "-", exact(seconds / len(facts.steps))]
        for phase, seconds in totals.items()
    ]
    alt = f"In {len(facts.steps)} steps: " + ", ".join(f"{p} {duration(s)}" for p, s in totals.items()) + "."
    note = f"Each bar is the mean of {size} steps." if size > 1 else ""
    return Figure(
        "time", "Time by phase", draw, alt, ("phase", "seconds", "share", "seconds a step"), rows, note, height=3.2
    )


def cost_figure(facts: Facts) -> Figure | None:
    """Return what was paid up to each step, where labels don't cost 1 each."""
    if not facts.paid or not facts.costs_differ:
        return None
    failed = any(failures for *_, failures in facts.paid)
    shown = _thin(facts.paid, _MOST_POINTS)

    def draw(axes: Axes, palette: Palette) -> None:
        steps, labels, failures = (np.array(column) for column in zip(*shown, strict=True))
        axes.plot(steps, labels, **palette.line(0), **_marks(len(steps)))
        ends = [(float(steps[-1]), float(labels[-1]), "labels")]
        if failed:
            axes.plot(steps, failures, **palette.line(1), **_marks(len(steps)))
            ends.append((float(steps[-1]), float(failures[-1]), "failures"))
        axes.set_xlabel("step")
        axes.set_ylabel("paid up to the step")
        axes.set_ylim(bottom=0)
        label_ends(axes, palette, ends)

    _, labels, failures = facts.paid[-1]
    alt = f"Labels cost {labels:g} in all, attempts that failed {failures:g}."
    rows = _thin([[str(step), exact(labels), exact(failures)] for step, labels, failures in facts.paid])
    return Figure("cost", "Cost", draw, alt, ("step", "labels", "failed attempts"), rows, _left_out(facts.paid))


# -- the pool and the learner --------------------------------------------------------------------------------------


def map_figure(samples: Samples) -> Figure | None:
    """Return the pool in two dimensions, with what was picked, and what the learner says of a plane."""
    if samples.map is None:
        return None
    pool_map = samples.map

    def draw(axes: Axes, palette: Palette) -> None:
        if samples.surface is not None:
            _draw_surface(axes, palette, samples)
        plain = {"linewidths": 0, "zorder": 2}
        if len(pool_map.rest):
            axes.scatter(*pool_map.rest.T, s=6, color="#808890", alpha=0.45, rasterized=True, label="rest", **plain)
        if len(pool_map.start):
            axes.scatter(*pool_map.start.T, s=22, marker="s", facecolors=palette.paper, edgecolors=palette.ink,
                         linewidths=1.0, zorder=3, label="labeled at the start")  # fmt: skip
        if len(pool_map.picks):
            many = len(pool_map.picks) > 400
            axes.scatter(*pool_map.picks.T, s=14 if many else 22, marker="o", color=palette.series[1],
                         edgecolors=palette.paper, linewidths=0.5, zorder=4, label="picked")  # fmt: skip
        if len(pool_map.waiting):
            axes.scatter(*pool_map.waiting.T, s=42, marker="*", color=palette.series[3], edgecolors=palette.ink,
                         linewidths=0.6, zorder=5, label="waiting for a label")  # fmt: skip
        axes.set_xlabel(pool_map.axes[0])
        axes.set_ylabel(pool_map.axes[1])
        axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0),
                    borderaxespad=0.2, handletextpad=0.2, columnspacing=1.0)  # fmt: skip

    shown = sum(len(group) for group in (pool_map.rest, pool_map.start, pool_map.picks, pool_map.waiting))
    kind = (
        "The two features" if pool_map.kind == "plane" else "First two principal components of the standardized inputs"
    )
    part = f"; {shown:,} of {pool_map.total:,} samples are drawn" if shown < pool_map.total else ""
    note = f"{kind}{part}. {_surface_words(samples)}".strip()
    alt = (
        f"{pool_map.asked} of {pool_map.total} samples were picked; {len(pool_map.waiting)} of those drawn wait for "
        "a label. "
        f"{_where(pool_map)}"
    )
    rows = [
        [
            name,
            str(len(points)),
            *(exact(float(coordinate)) for coordinate in (points.mean(axis=0) if len(points) else ())),
        ]
        for name, points in (
            ("rest", pool_map.rest),
            ("labeled at the start", pool_map.start),
            ("picked", pool_map.picks),
            ("waiting for a label", pool_map.waiting),
        )
        if len(points)
    ]
    header = ("samples", "drawn", "mean of the horizontal axis", "mean of the vertical axis")
    return Figure("map", "Map of the pool", draw, alt, header, rows, note, height=4.2, wide=False)


def _where(pool_map: PoolMap) -> str:
    if len(pool_map.picks) < 2 or len(pool_map.rest) < 2:
        return ""
    ratio = float(pool_map.picks.std(axis=0).mean() / max(pool_map.rest.std(axis=0).mean(), 1e-12))
    spread = "as far as" if 0.8 < ratio < 1.25 else "less far than" if ratio <= 0.8 else "farther than"
    return f"Picks spread {spread} the rest ({ratio:.2f} of its standard deviation)."


def _surface_words(samples: Samples) -> str:
    if samples.surface is None:
        return ""
    if samples.surface.kind == "probability":
        name = samples.class_name(1)
        return f"Solid line: the learner's decision; dashed: where it gives class {name} the probability 0.1 and 0.9."
    if samples.surface.kind == "class":
        return "Lines: where the learner's class changes; the name of the class stands in its largest part."
    return "Lines: where the learner predicts the same value, which stands on them."


def _draw_surface(axes: Axes, palette: Palette, samples: Samples) -> None:
    surface = samples.surface
    if surface is None:
        return
    x, y, values = surface.x, surface.y, surface.values
    if surface.kind == "class":
        for code in np.unique(values):
            inside = values == code
            axes.contour(x, y, inside.astype(float), levels=[0.5], colors=[palette.ink], linewidths=1.2, zorder=1)
            rows, columns = np.nonzero(inside)
            middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            axes.text(
                x[columns[middle]], y[rows[middle]], _clip(samples.class_name(int(code)), 10), fontsize=10,
                weight="bold", ha="center", zorder=6,
            )  # fmt: skip
        return
    if surface.kind == "probability":
        axes.contourf(x, y, values, levels=[0.5, 1.0], colors=[palette.series[0]], alpha=0.13, zorder=0)
        levels, styles, widths = [0.1, 0.5, 0.9], ["--", "-", "--"], [0.9, 1.8, 0.9]
        inside = [i for i, level in enumerate(levels) if values.min() < level < values.max()]
        if inside:
            axes.contour(
                x, y, values, levels=[levels[i] for i in inside], linestyles=[styles[i] for i in inside],
                linewidths=[widths[i] for i in inside], colors=[palette.ink], zorder=1,
            )  # fmt: skip
        share = values >= 0.5
        for code, inside_class in ((1, share), (0, ~share)):
            if inside_class.any():
                axes.text(
                    0.98 if code else 0.02, 0.02, f"class {_clip(samples.class_name(code), 12)} "
                    + ("shaded" if code else "plain"), transform=axes.transAxes, ha="right" if code else "left",
                    fontsize=8.5, zorder=6,
                )  # fmt: skip
        return
    if np.ptp(values) > 0:
        lines = axes.contour(x, y, values, levels=7, colors=[palette.muted], linewidths=1.0, zorder=1)
        axes.clabel(lines, fontsize=8)


def calibration_figure(samples: Samples) -> Figure | None:
    """Return how often a classifier is right against how sure it is."""
    predictions = samples.predictions
    if predictions is None or samples.info is None or samples.info.task != "classification":
        return None
    bins = calibration(predictions)

    def draw(axes: Axes, palette: Palette) -> None:
        axes.plot([0, 1], [0, 1], color=palette.muted, linestyle=(0, (3, 3)), linewidth=1)
        axes.annotate("as sure as right", (0.08, 0.12), fontsize=8.5, color=palette.ink, rotation=0)
        axes.plot([bin_[0] for bin_ in bins], [bin_[1] for bin_ in bins], **palette.line(0))
        for confidence, right, count in bins:
            axes.annotate(f"{count}", (confidence, right), xytext=(0, 6), textcoords="offset points", fontsize=7.5,
                          ha="center", color=palette.ink)  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.08)
        axes.set_xlabel("confidence of the learner")
        axes.set_ylabel("share that is right")

    error = calibration_error(predictions)
    rows = [[exact(confidence), exact(right), str(count)] for confidence, right, count in bins]
    note = f"On {_of(predictions)}. Beside each point: how many samples it stands for. Calibration error: {error:.3f}."
    alt = f"Expected calibration error {error:.3f} on {len(predictions.targets)} samples."
    return Figure("calibration", "How sure, how right", draw, alt, ("confidence", "accuracy", "samples"), rows, note)


def _of(predictions: SamplePredictions) -> str:
    all_of = (
        f"{len(predictions.targets)} of {predictions.total}"
        if len(predictions.targets) < predictions.total
        else f"{predictions.total}"
    )
    return f"{all_of} {place_name(predictions.on)}"


def parity_figure(samples: Samples) -> Figure | None:
    """Return predictions of a regression against the truth."""
    predictions = samples.predictions
    if predictions is None or samples.info is None or samples.info.task != "regression" or is_field(predictions):
        return None
    values = regression_values(predictions)
    if values is None:
        return None
    truth, predicted = (
        numbers.astype(np.float64).reshape(len(values), -1) for numbers in (predictions.targets, values)
    )
    kept = spaced(len(truth), 800)
    columns = min(4, truth.shape[1])

    def draw(axes: Axes, palette: Palette) -> None:
        shown_truth, shown = truth[kept, :columns], predicted[kept, :columns]
        low, high = float(min(shown_truth.min(), shown.min())), float(max(shown_truth.max(), shown.max()))
        axes.plot([low, high], [low, high], color=palette.ink, linestyle=(0, (4, 3)), linewidth=1.1)
        for place in range(columns):
            style = palette.line(place)
            axes.plot(shown_truth[:, place], shown[:, place], linestyle="", marker=style["marker"], markersize=3.6,
                      markerfacecolor="none", markeredgecolor=style["color"], markeredgewidth=0.9,
                      label=f"output {place + 1}")  # fmt: skip
        axes.set_xlabel("truth")
        axes.set_ylabel("prediction")
        if columns > 1:
            axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))

    error = predicted - truth
    rmse = float(np.sqrt((error**2).mean()))
    spread = float(((truth - truth.mean(axis=0)) ** 2).sum())
    r2 = 1 - float((error**2).sum()) / spread if spread > 0 else math.nan
    order = np.argsort(-np.abs(error).max(axis=1), kind="stable")[:20]
    rows = [[exact(float(truth[i, 0])), exact(float(predicted[i, 0])), exact(float(error[i, 0]))] for i in order]
    note = f"On {_of(predictions)}; dashed: where both are equal. RMSE {rmse:.4g}, R2 {r2:.3f}."
    note += " Table: the 20 largest errors."
    alt = f"RMSE {rmse:.4g} and R2 {r2:.3f} on {len(truth)} samples."
    return Figure("parity", "Prediction and truth", draw, alt, ("truth", "prediction", "error"), rows, note, height=3.8)


def field_figures(samples: Samples) -> list[Figure]:
    """Return truth, prediction and error of the worst and of the median sample of fields."""
    predictions = samples.predictions
    if predictions is None or samples.info is None or samples.info.task != "regression" or not is_field(predictions):
        return []
    values = regression_values(predictions)
    if values is None:
        return []
    truth = predictions.targets.astype(np.float64)
    errors = relative_errors(truth, values)
    order = [int(place) for place in np.argsort(errors, kind="stable") if math.isfinite(errors[place])]
    if not order:
        return []
    shown = {"worst": order[-1], "median": order[(len(order) - 1) // 2]}
    return [
        _field(name, truth[place], values[place], float(errors[place]), predictions) for name, place in shown.items()
    ]


def _field(name: str, truth: Any, value: Any, error: float, predictions: SamplePredictions) -> Figure:
    channels = 0
    while truth.ndim > 2:  # the first channel, and the middle of a volume
        at = 0 if channels == 0 and truth.ndim == 3 else truth.shape[0] // 2
        channels, truth, value = channels + 1, truth[at], value[at]
    off = value - truth

    def draw_curves(axes: Axes, palette: Palette) -> None:
        places = np.arange(len(truth))
        for panel, field, title in zip(axes, (truth, value, off), ("truth", "prediction", "error"), strict=True):
            if title == "prediction":
                panel.plot(places, truth, color=palette.muted, linestyle=(0, (3, 2)), linewidth=1)
            panel.plot(places, field, color=palette.series[0], linewidth=1.6)
            panel.set_title(title, fontsize=10)

    def draw_images(axes: Axes, _palette: Palette) -> None:
        low, high = float(min(truth.min(), value.min())), float(max(truth.max(), value.max()))
        most = float(np.abs(off).max()) or 1.0
        for panel, field, title in zip(axes, (truth, value, off), ("truth", "prediction", "error"), strict=True):
            limits = {"vmin": -most, "vmax": most, "cmap": "RdBu_r"} if title == "error" else {
                "vmin": low, "vmax": high, "cmap": "cividis"}  # fmt: skip
            image = panel.imshow(field, **limits, origin="lower", interpolation="nearest", aspect="auto")
            bar = panel.figure.colorbar(image, ax=panel, orientation="horizontal", fraction=0.07, pad=0.04)
            bar.ax.tick_params(labelsize=8)
            bar.ax.locator_params(nbins=3)
            panel.set_title(title, fontsize=10)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(visible=False)

    rows = [
        [label, exact(float(field.min())), exact(float(field.mean())), exact(float(field.max()))]
        for label, field in (("truth", truth), ("prediction", value), ("error", off))
    ]
    part = " One slice of the field is drawn." if channels > 1 else ""
    return Figure(
        f"field-{name}",
        f"{name.capitalize()} field",
        draw_images if truth.ndim == 2 else draw_curves,
        f"Truth, prediction and error of the {name} sample; its relative L2 error is {error:.4g}.",
        ("field", "lowest", "mean", "highest"),
        rows,
        f"Relative L2 error {error:.4g}: the {name} of {_of(predictions)}.{part}",
        panels=3,
        height=3.0,
        wide=True,
    )


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
