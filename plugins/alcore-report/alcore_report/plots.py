"""Learning curves as a picture that is readable without color."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alcore.errors import UsageError
from alcore_report.compare import Axis, Comparison
from alcore_report.forecasting import RunForecast

FORMATS = (".png", ".svg")
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # of Okabe and Ito
_BASE = "#555555"
_LINES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (10, 3)), (0, (4, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GAP = 0.055  # least distance of two labels, as a share of the height


def check_format(path: Path) -> None:
    """Raise `UsageError` unless a picture can be written under this name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: a picture is written as {' or '.join(FORMATS)}; name it {path.stem}.png.")


def draw(comparison: Comparison, path: Path) -> None:
    """Write the mean curves with their 95% intervals, over labels, and over cost beside it where costs differ.

    Parameters
    ----------
    comparison
        What is shown.
    path
        A name that ends in ``.png`` or ``.svg``.
    """
    with _panels(path, len(comparison.axes)) as panels:
        for panel, axis in zip(panels, comparison.axes, strict=True):
            _panel(panel, comparison, axis)


def draw_forecast(expected: RunForecast, path: Path) -> None:
    """Write a run's curve and what is expected of it, with its interval.

    Parameters
    ----------
    expected
        What is shown.
    path
        A name that ends in ``.png`` or ``.svg``.
    """
    with _panels(path, 1) as (panel,):
        ahead = expected.ahead
        x, last = np.append(expected.labels[-1], ahead.labels), float(expected.values[-1])
        middle, low, high = (np.append(last, values) for values in (ahead.expected, ahead.low, ahead.high))
        panel.fill_between(x, low, high, color=_COLORS[0], alpha=0.15, linewidth=0)
        for edge in (low, high):
            panel.plot(x, edge, color=_COLORS[0], linewidth=0.6, alpha=0.7)
        panel.plot(expected.labels, expected.values, label="measured", **_style(0, False))
        panel.plot(x, middle, label="expected, with the 90% interval", **_style(1, False))
        panel.set_xlabel("labeled samples")
        panel.set_ylabel(expected.short)
        panel.legend(frameon=False)
        panel.grid(alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)


@contextlib.contextmanager
def _panels(path: Path, count: int) -> Iterator[Any]:
    """Yield so many panels beside each other, and write the picture when the block ends."""
    import matplotlib

    check_format(path)
    with matplotlib.rc_context({"svg.hashsalt": "alcore", "svg.fonttype": "none", "font.size": 10}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.4 * count, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots(1, count, squeeze=False)[0]
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def _panel(panel: Any, comparison: Comparison, axis: Axis) -> None:
    ends: list[tuple[float, str, dict[str, Any]]] = []
    edges: list[tuple[Any, dict[str, Any]]] = []
    shown = list(axis.arms.values())
    for place, arm in enumerate(shown):
        style = _style(place, arm.arm == comparison.baseline)
        every = max(1, len(axis.x) // 9)
        start = (place * every) // max(1, len(shown))  # so that markers of curves that coincide stand beside each other
        panel.plot(axis.x, arm.mean, markevery=(start, every), **style)
        if np.isfinite(arm.low).all():
            panel.fill_between(axis.x, arm.low, arm.high, color=style["color"], alpha=0.15, linewidth=0)
            edge = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 0.6, "alpha": 0.7}
            edges += [(arm.low, edge), (arm.high, edge)]
        ends.append((float(arm.mean[-1]), arm.arm, style))
    if comparison.ceiling is not None:
        style = {"color": "black", "linestyle": (0, (1, 1.5)), "linewidth": 1.2}
        panel.axhline(comparison.ceiling.value, **style)
        ends.append((comparison.ceiling.value, f"ceiling, {comparison.ceiling_labels:.0f} labels", style))
    for heights, edge in edges:  # after the curves, whose places among the lines are known
        panel.plot(axis.x, heights, **edge)
    panel.set_xlabel("labeled samples" if axis.name == "labels" else "cost of labels")
    panel.set_ylabel(f"{comparison.short} ({'lower' if comparison.lower else 'higher'} is better)")
    panel.set_title(_title(comparison, axis), fontsize=10, loc="left")
    panel.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.margins(x=0.02)
    _label(panel, ends)


def _style(place: int, is_base: bool) -> dict[str, Any]:
    """Return how a curve is drawn: line, marker and color tell it from others, each of them alone."""
    return {
        "color": _BASE if is_base else _COLORS[place % len(_COLORS)],
        "linestyle": (0, (2, 2)) if is_base else _LINES[place % len(_LINES)],
        "marker": "x" if is_base else _MARKERS[place % len(_MARKERS)],
        "linewidth": 1.8,
        "markersize": 5.5,
        "markerfacecolor": "white",
        "markeredgewidth": 1.4,
    }


def _title(comparison: Comparison, axis: Axis) -> str:
    counts = sorted({len(arm.seeds) for arm in axis.arms.values()})
    if counts[-1] == 1:
        return f"{comparison.short} over {axis.name}, one seed"
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{comparison.short} over {axis.name}, mean of {seeds} seeds; bands: 95% intervals of the mean"


def _label(panel: Any, ends: Sequence[tuple[float, str, dict[str, Any]]]) -> None:
    """Write the name of each curve beside its end, with a piece of its line, and a thin line from there."""
    low, high = panel.get_ylim()
    panel.set_ylim(low, high)
    order = sorted(range(len(ends)), key=lambda place: ends[place][0])
    heights = spread([(ends[place][0] - low) / (high - low) for place in order], _GAP)
    right = panel.get_xlim()[1]
    for place, height in zip(order, heights, strict=True):
        value, name, style = ends[place]
        end = (panel.lines[place].get_xdata()[-1], value) if len(panel.lines[place].get_xdata()) > 2 else (right, value)
        panel.annotate(
            "",
            xy=end,
            xytext=(1.03, height),
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2},
        )
        key = {"transform": panel.transAxes, "clip_on": False, **style}
        panel.plot([1.03, 1.065, 1.10], [height] * 3, markevery=[1], **key)
        panel.text(1.115, height, name, transform=panel.transAxes, color=style["color"], va="center")
    panel.set_ylim(low, high)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart until no two are closer than `gap`, each group about its middle.

    Parameters
    ----------
    heights
        Ascending.
    gap
        The least distance.
    """
    groups: list[list[float]] = []  # sum of the wanted middles, size
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1:
            (above_sum, above), (below_sum, below) = groups[-1], groups[-2]
            if above_sum / above - below_sum / below >= gap * (above + below) / 2:
                break
            groups[-2:] = [[below_sum + above_sum, below + above]]
    return [total / size + gap * (place - (size - 1) / 2) for total, size in groups for place in range(int(size))]
