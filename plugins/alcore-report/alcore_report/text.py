"""A comparison, or a forecast, as plain text, at most 100 columns wide where names are short."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alcore_report.compare import Axis, Comparison, Gap, Target, number
from alcore_report.forecasting import LEVEL, RunForecast
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
        verdicts += [over + verdict.sentence for verdict in axis.verdicts.values()]
    if verdicts:
        blocks.append("\n".join(verdicts))
    if any(verdict.detectable for axis in comparison.axes for verdict in axis.verdicts.values()):
        blocks.append(
            "What would have been found: the shift of normal differences that the test finds in 80% of 4000\n"
            "simulated sets of as many seeds, within the 95% interval of the spread that so few seeds leave."
        )
    return "\n\n".join(blocks)


def _axis(comparison: Comparison, axis: Axis) -> list[str]:
    rows = [[arm.arm, str(len(arm.seeds)), *_cells(arm.area), *_cells(arm.final)] for arm in axis.arms.values()]
    if comparison.ceiling is not None and axis.name == "labels":
        name = f"ceiling ({comparison.ceiling_labels:.0f} labels)"
        rows.append([name, str(comparison.ceiling_seeds), "-", "", *_cells(comparison.ceiling)])
    header = ["arm", "seeds", "area", "95% interval", "final", "95% interval"]
    curves = f"Mean curves over {axis.name}, {axis.x[0]:g} to {axis.x[-1]:g}\n" + table(header, rows)
    if axis.gap is None:
        return [curves, no_gap(comparison, axis)]
    return [curves, _to_close(comparison, axis, axis.gap)]


def no_gap(comparison: Comparison, axis: Axis) -> str:
    """Say why there is no gap to close."""
    top = "The ceiling" if comparison.ceiling is not None else "The best final mean"
    return f"{top} is not better than the start ({start_place(axis)}), so there is no gap to close."


def start_place(axis: Axis) -> str:
    """Return where the start is: the first place that all curves cover."""
    at = f"{axis.x[0]:g}"
    return f"at {at} labels" if axis.name == "labels" else f"at a cost of {at}"


def _to_close(comparison: Comparison, axis: Axis, gap: Gap) -> str:
    """Return the table of what is needed to close parts of the gap."""
    last = float(axis.x[-1])
    first_arm = next(iter(axis.targets))
    rows = []
    for place, target in enumerate(axis.targets[first_arm]):
        for arm, targets in axis.targets.items():
            own = targets[place]
            rows.append(
                [
                    f"{target.part:.0%}" if arm == first_arm else "",
                    number(target.height, 4) if arm == first_arm else "",
                    arm,
                    *_needed(own.reached.labels, last),
                    f"{own.reached.seeds} of {len(axis.arms[arm].seeds)}",
                    *_saved(own, axis.targets[comparison.baseline or arm][place]),
                ]
            )
    saved = f"saved vs {comparison.baseline}"
    header = ["part", comparison.short, "arm", axis.name, "95% interval", "seeds there", saved, "95% interval"]
    of = "the ceiling" if gap.measured else f"the best final mean ({gap.of}; there is no ceiling)"
    title = (
        f"{axis.name.capitalize()} to close a part of the gap from {number(gap.start, 4)} ({start_place(axis)}) to "
        f"{number(gap.ceiling, 4)}, {of}"
    )
    lines = [title, table(header, rows)]
    if any(">" in cell for row in rows for cell in row):
        saving = f"; such a curve counts with {last:.0f} in what is saved" if comparison.baseline else ""
        lines.append(f"> {last:.0f}: not reached by then{saving}.")
    return "\n".join(lines)


def _cells(estimate: Interval) -> list[str]:
    interval = "" if math.isnan(estimate.low) else f"{number(estimate.low, 4)} to {number(estimate.high, 4)}"
    return [number(estimate.value, 4), interval]


def _needed(estimate: Interval, last: float) -> list[str]:
    def shown(value: float) -> str:
        return f"{value:.0f}" if math.isfinite(value) else f"> {last:.0f}"

    return [
        shown(estimate.value),
        f"{shown(estimate.low)} to {shown(estimate.high)}" if math.isfinite(estimate.low) else "",
    ]


def _saved(own: Target, base: Target) -> list[str]:
    saving = own.saved
    if saving is None:
        return ["", ""]
    if math.isnan(saving.value):
        return ["-", ""]
    bound = "" if math.isfinite(base.reached.labels.value) else ">= "
    bound = bound if math.isfinite(own.reached.labels.value) else "<= "
    value, low, high = saving
    return [f"{bound}{round(value)}", "" if math.isnan(low) else f"{round(low)} to {round(high)}"]


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


def forecast_as_text(expected: RunForecast) -> str:
    """Return a forecast as a table and a sentence."""
    ahead, last = expected.ahead, float(expected.labels[-1])
    columns = ahead.labels, ahead.expected, ahead.low, ahead.high, ahead.change_low, ahead.change_high
    rows = [
        [
            f"{labels:.0f}",
            f"{labels - last:.0f}",
            number(middle, 3),
            f"{number(low, 3)} to {number(high, 3)}",
            f"{least:+.3g} to {most:+.3g}",
        ]
        for labels, middle, low, high, least, most in zip(*columns, strict=True)
    ]
    return "\n".join(
        [
            f"{expected.metric}: {number(float(expected.values[-1]), 3)} with {last:.0f} labels",
            "",
            table(["labels", "more", "expected", f"{LEVEL:.0%} interval", "change without noise"], rows),
            "",
            expected.verdict,
        ]
    )
