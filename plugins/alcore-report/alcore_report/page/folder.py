"""The page about the runs of a folder: the comparison, and a section for each run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from alcore.errors import UsageError
from alcore.store import Run, summaries
from alcore_report.compare import Axis, Comparison, compare_curves, number
from alcore_report.curves import curves_of_runs, runs_to_compare, usual_metric
from alcore_report.page import figures as fig
from alcore_report.page.advice import advice
from alcore_report.page.canvas import Axes, Figure, Palette, empty, label_ends, picture
from alcore_report.page.facts import command_name, read_facts
from alcore_report.page.html import render
from alcore_report.page.report import Page, lead, status_words
from alcore_report.page.samples import Samples, spaced
from alcore_report.statistics import Interval
from alcore_report.text import no_gap, start_place

_MOST_DETAILS = 40  # runs with a section of their own
_MOST_ROWS = 500


def report_folder(folder: Path) -> Page:
    """Return the page about the runs of a folder, of a benchmark or of any others.

    Parameters
    ----------
    folder
        It has at least one run directory.

    Raises
    ------
    UsageError
        If what a benchmark wrote about its runs is damaged.
    """
    chosen, others = runs_to_compare(folder)
    curves = curves_of_runs(chosen)
    curves.left_out = [*others, *curves.left_out]
    comparison, why = None, ""
    try:
        comparison = compare_curves(curves)
    except UsageError as error:
        why = str(error)
    lines = list(summaries(folder))
    details = [detail for line in lines[:_MOST_DETAILS] if (detail := _detail(folder, line.run_id)) is not None]
    keys = {detail["name"]: detail["key"] for detail in details}
    figures = [] if comparison is None else [_curves(comparison, axis) for axis in comparison.axes]
    verdicts, notes = _verdicts(comparison, why)
    labels = sum(line.labels for line in lines)
    states = list(dict.fromkeys(line.status for line in lines))
    words = ", ".join(f"{sum(line.status == status for line in lines)} {status}" for status in states)
    page = render(
        "folder.html.j2",
        {
            "title": f"Runs in {folder.resolve().name}",
            "command": f"alcore report {command_name(folder)}",
            "heading": f"Runs in {folder.resolve().name}",
            "verdicts": verdicts,
            "verdict_notes": notes,
            "sections": [*([("comparison", "Comparison")] if figures else []), ("runs", "Runs"), ("each", "Each run")],
            "figures_of_folder": [
                ("runs", f"{len(lines):,}", words),
                ("labels bought", f"{labels:,}", "in all runs together"),
                *([("arms", str(len(comparison.axes[0].arms)), "")] if comparison is not None else []),
            ],
            "comparison_figures": figures,
            "tables": [] if comparison is None else _tables(comparison),
            "run_header": ["run", "status", "steps", "labels", "last metric"],
            "runs": [
                {
                    "name": line.run_id,
                    "key": keys.get(line.run_id, ""),
                    "cells": [line.status, f"{line.steps:,}", f"{line.labels:,}", _last(line.metrics)],
                }
                for line in lines[:_MOST_ROWS]
            ],
            "more_runs": _more(len(lines)),
            "details": details,
        },
    )
    return Page(page, _picture(comparison, figures), [], [*verdicts, *notes])


def _last(metrics: dict[str, float]) -> str:
    if not metrics:
        return "-"
    name = usual_metric(list(metrics))
    return f"{name} {metrics[name]:.4g}"


def _more(count: int) -> str:
    parts = []
    if count > _MOST_ROWS:
        parts.append(f"{_MOST_ROWS} of {count} runs are listed.")
    if count > _MOST_DETAILS:
        parts.append(f"The first {_MOST_DETAILS} have a section below.")
    return " ".join(parts)


def _detail(root: Path, name: str) -> dict[str, Any] | None:
    """Return what is shown of one run, from its directory alone; None for one that can't be read."""
    folder = root / name
    try:
        facts = read_facts(Run(folder))
    except ValueError:  # a UsageError, or text that is not JSON; the list of runs says that it is unreadable
        return None
    metrics = fig.metric_figures(facts)[:1]
    key = "run-" + "".join(
        character if character.isascii() and character.isalnum() else f"_{ord(character):x}" for character in name
    )
    return {
        "key": key,
        "name": name,
        "status": status_words(facts),
        "lead": lead(facts),
        "reason": facts.reason,
        "figures": [dataclasses.replace(metric, key=f"{key}-{metric.key}") for metric in metrics],
        "cards": advice(facts, Samples()),
        "command": f"alcore report {command_name(folder)}",
    }


def _verdicts(comparison: Comparison | None, why: str) -> tuple[list[str], list[str]]:
    if comparison is None:
        return [], [f"The runs can't be compared: {why}"]
    verdicts = []
    for axis in comparison.axes:
        over = f"Over {axis.name}: " if len(comparison.axes) > 1 else ""
        verdicts += [over + verdict.sentence for verdict in axis.verdicts.values()]
    notes = list(comparison.notes)
    notes += [f"Left out: {name}: {reason}" for name, reason in comparison.left_out[:20]]
    if len(comparison.left_out) > 20:
        notes.append(f"{len(comparison.left_out) - 20} more runs are left out.")
    if not verdicts:
        arm = next(iter(comparison.axes[0].arms))
        notes.insert(0, f"There is one arm only, {arm}: run the same seeds with another query strategy to compare it.")
    return verdicts, notes


def _curves(comparison: Comparison, axis: Axis) -> Figure:
    kept = spaced(len(axis.x), 200)
    x = axis.x[kept]
    arms = list(axis.arms.values())

    def draw(axes: Axes, palette: Palette) -> None:
        ends = []
        for place, arm in enumerate(arms):
            style = palette.line(place)
            every = max(1, len(x) // 9)
            axes.plot(x, arm.mean[kept], markevery=((place * every) // max(1, len(arms)), every), **style)
            if np.isfinite(arm.low).all():
                axes.fill_between(x, arm.low[kept], arm.high[kept], color=style["color"], alpha=0.15, linewidth=0)
                for edge in (arm.low, arm.high):
                    axes.plot(x, edge[kept], color=style["color"], linestyle=style["linestyle"], linewidth=0.6)
            ends.append((float(x[-1]), float(arm.mean[-1]), arm.arm))
        if comparison.ceiling is not None:
            axes.axhline(comparison.ceiling.value, color=palette.ink, linestyle=(0, (1, 1.5)), linewidth=1.2)
            ends.append((float(x[-1]), comparison.ceiling.value, "ceiling"))
        axes.set_xlabel("labeled samples" if axis.name == "labels" else "cost of labels")
        axes.set_ylabel(f"{comparison.short} ({'lower' if comparison.lower else 'higher'} is better)")
        label_ends(axes, palette, ends)

    header = [axis.name, *(arm.arm for arm in arms)]
    rows = [
        [f"{axis.x[place]:g}", *(fig.exact(float(arm.mean[place])) for arm in arms)]
        for place in spaced(len(axis.x), fig.MOST_ROWS)
    ]
    seeds = sorted({len(arm.seeds) for arm in arms})
    counted = (
        "one seed" if seeds == [1] else f"mean of {seeds[0] if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'} seeds"
    )
    alt = "; ".join(f"{arm.arm} ends at {arm.final.value:.4g}" for arm in arms)
    band = "" if seeds[-1] == 1 else "; bands: 95% intervals of the mean"
    return Figure(
        f"comparison-{axis.name}", f"{comparison.short} over {axis.name}", draw, f"{counted}; {alt}.", header, rows,
        f"{counted[0].upper()}{counted[1:]}{band}.", height=3.4,
    )  # fmt: skip


def _tables(comparison: Comparison) -> list[dict[str, Any]]:
    tables = []
    for axis in comparison.axes:
        rows = [[arm.arm, str(len(arm.seeds)), *_cells(arm.area), *_cells(arm.final)] for arm in axis.arms.values()]
        if comparison.ceiling is not None and axis.name == "labels":
            rows.append(["ceiling", str(comparison.ceiling_seeds), "-", "-", *_cells(comparison.ceiling)])
        tables.append(
            {
                "title": f"{comparison.short} over {axis.name}",
                "header": ["arm", "seeds", "mean along the curve", "95% interval", "at the end", "95% interval"],
                "rows": rows,
                "note": "",
            }
        )
        if axis.gap is None:
            tables[-1]["note"] = no_gap(comparison, axis)
            continue
        to_close = [
            [f"{target.part:.0%} ({number(target.height, 4)})", arm, _needed(target.reached.labels.value, axis)]
            for place in range(len(next(iter(axis.targets.values()))))
            for arm, targets in axis.targets.items()
            for target in [targets[place]]
        ]
        of = "ceiling" if axis.gap.measured else f"best final mean, of {axis.gap.of}"
        start = f"{number(axis.gap.start, 4)} ({start_place(axis)})"
        tables.append(
            {
                "title": f"{axis.name.capitalize()} to close a part of the gap",
                "header": ["part of the gap", "arm", axis.name],
                "rows": to_close,
                "note": f"From {start} to {number(axis.gap.ceiling, 4)} ({of}).",
            }
        )
    return tables


def _needed(value: float, axis: Axis) -> str:
    return f"{value:.0f}" if np.isfinite(value) else f"> {axis.x[-1]:.0f}"


def _cells(estimate: Interval) -> list[str]:
    interval = "-" if np.isnan(estimate.low) else f"{number(estimate.low, 4)} to {number(estimate.high, 4)}"
    return [number(estimate.value, 4), interval]


def _picture(comparison: Comparison | None, figures: list[Figure]) -> bytes:
    if comparison is None:
        return picture([empty("No run can be compared")], "")
    verdicts, _ = _verdicts(comparison, "")
    return picture(figures, " ".join(verdicts))
