"""A comparison as plain text, at most 100 columns wide where names are short."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alcore_report.compare import Axis, Comparison, Target, number
from alcore_report.statistics import Interval

_PLACES = {"pool": "all points of the pool", "validation": "the held-out validation pool", "train": "the training set"}


def as_text(comparison: Comparison) -> str:
    """Return tables and verdicts."""
    where = " and ".join(_PLACES.get(place, place) for place in comparison.on)
    better = "lower" if comparison.lower else "higher"
    title = f"{comparison.metric}" + (f", measured on {where}" if where else "") + f"; {better} is better"
    blocks = [title]
    for axis in comparison.axes:
        blocks += _axis(comparison, axis)
    if comparison.notes:
        blocks.append("\n".join(f"Note: {note}" for note in comparison.notes))
    if comparison.left_out:
        blocks.append("\n".join(["Left out:", *(f"  {name}: {why}" for name, why in comparison.left_out)]))
    verdicts = []
    for axis in comparison.axes:
        over = f"Over {axis.name}: " if len(comparison.axes) > 1 else ""
        verdicts += [over + one.sentence for one in axis.verdicts.values()]
    if verdicts:
        blocks.append("\n".join(verdicts))
    return "\n\n".join(blocks)


def _axis(comparison: Comparison, axis: Axis) -> list[str]:
    rows = []
    for one in axis.arms.values():
        rows.append([one.arm, str(len(one.seeds)), *_cells(one.area), *_cells(one.final)])
    if comparison.ceiling is not None and axis.name == "labels":
        labels = f"ceiling ({comparison.ceiling_labels:.0f} labels)"
        rows.append([labels, str(comparison.ceiling_seeds), "-", "", *_cells(comparison.ceiling)])
    span = f"{axis.x[0]:g} to {axis.x[-1]:g}"
    curves = (
        f"Mean curves over {axis.name}, {span}\n"
        + table(["arm", "seeds", "area", "95% interval", "final", "95% interval"], rows)
    )
    if axis.gap is None:
        gap = "The ceiling is not better than the start, so there is no gap to close."
        return [curves, gap if len(axis.x) > 1 else ""]
    of = "the ceiling" if axis.gap.measured else f"the best final mean ({axis.gap.of}; there is no ceiling)"
    rows = []
    censored = False
    for place, first in enumerate(next(iter(axis.targets.values()))):
        for arm, targets in axis.targets.items():
            target = targets[place]
            interval, censored_here = _needed(target.reached.labels, float(axis.x[-1]))
            censored = censored or censored_here
            own = axis.arms[arm]
            rows.append(
                [
                    f"{first.part:.0%}" if arm == next(iter(axis.targets)) else "",
                    number(first.height, 4) if arm == next(iter(axis.targets)) else "",
                    arm,
                    *interval,
                    f"{target.reached.seeds} of {len(own.seeds)}",
                    *([""] * 2 if target.saved is None else _saved(target, axis.targets[comparison.baseline or ""][place])),
                ]
            )
    against = [f"saved vs {comparison.baseline}", "95% interval"] if comparison.baseline else ["", ""]
    unit = axis.name
    text = (
        f"{unit.capitalize()} to close a part of the gap from {number(axis.gap.start, 4)} (step 0) to "
        f"{number(axis.gap.ceiling, 4)}, {of}\n"
        + table(["part", comparison.short, "arm", unit, "95% interval", "seeds there", *against], rows)
    )
    if censored:
        text += f"\n> {axis.x[-1]:.0f}: not reached by then; such a curve counts with {axis.x[-1]:.0f} in what is saved."
    return [curves, text]


def _cells(one: Interval) -> list[str]:
    interval = "" if math.isnan(one.low) else f"{number(one.low, 4)} to {number(one.high, 4)}"
    return [number(one.value, 4), interval]


def _needed(one: Interval, last: float) -> tuple[list[str], bool]:
    def shown(value: float) -> str:
        return f"{value:.0f}" if math.isfinite(value) else f"> {last:.0f}"

    interval = "" if math.isnan(one.low) or math.isinf(one.low) else f"{shown(one.low)} to {shown(one.high)}"
    return [shown(one.value), interval], not (math.isfinite(one.value) and not math.isinf(one.high))


def _saved(own: Target, base: Target) -> list[str]:
    one = own.saved
    if one is None or math.isnan(one.value):
        return ["-", ""]
    bound = "" if math.isfinite(base.reached.labels.value) else ">= "
    bound = bound if math.isfinite(own.reached.labels.value) else "<= "
    return [f"{bound}{one.value:.0f}", "" if math.isnan(one.low) else f"{one.low:.0f} to {one.high:.0f}"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table: columns of numbers are aligned to the right, others to the left; empty ones are left out."""
    kept = [place for place in range(len(header)) if any(row[place] for row in rows)]
    cells = [[header[place] for place in kept], *([row[place] for place in kept] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(kept))]
    right = [all(not row[c] or row[c][0] in "-0123456789><" for row in cells[1:]) for c in range(len(kept))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )
