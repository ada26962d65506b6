"""Line charts as SVG; colors, dashes and fonts are those of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 250
STYLES = 8
"""So many lines can be told apart, by color, dashes and markers."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 22, 10, 40
_MOST_MARKERS = 12
_MOST_POINTS = 400
_R = 3.6


class Line(NamedTuple):
    """One line of a chart.

    Parameters
    ----------
    label
        What it shows.
    points
        Places and values, finite.
    style
        Lines of one style look the same; from 0, and those from `STYLES` on begin again.
    """

    label: str
    points: Sequence[tuple[float, float]]
    style: int = 0


def line_chart(lines: Sequence[Line], *, title: str, x_label: str) -> Markup:
    """Return a chart as an ``svg`` element.

    Parameters
    ----------
    lines
        What is drawn; those without points are left out.
    title
        The name of the chart, for those who don't see it.
    x_label
        What stands below the horizontal axis.
    """
    shown = [
        line._replace(points=[(_drawable(x), _drawable(y)) for x, y in line.points]) for line in lines if line.points
    ]
    x_ticks = ticks([x for line in shown for x, _ in line.points], 5)
    y_ticks = ticks([y for line in shown for _, y in line.points], 5)
    scale = _Scale(x_ticks, y_ticks)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_described(shown, title, x_label))}">'
    ]
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{scale.y(y)}" y2="{scale.y(y)}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{scale.y(y) + 4}">{tick_text(y, y_ticks)}</text>')
    for x in x_ticks:
        parts.append(
            f'<text class="tick mid" x="{scale.x(x)}" y="{HEIGHT - _BOTTOM + 16}">{tick_text(x, x_ticks)}</text>'
        )
    bottom = HEIGHT - _BOTTOM
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="tick mid" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 5}">{escape(x_label)}</text>')
    parts += [_drawn(line, scale) for line in shown]
    return Markup("".join(parts) + "</svg>")  # names are escaped above


def key(style: int) -> Markup:
    """Return a short piece of a line with its marker, for a legend."""
    drawn = style % STYLES
    return Markup(
        f'<svg class="key" viewBox="0 0 28 14" aria-hidden="true"><path class="line s{drawn}" d="M0 7H28"/>'
        f'<path class="mark s{drawn}" d="{_marker(drawn, 14, 7)}"/></svg>'
    )


class _Scale:
    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
        self._x, self._y = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def x(self, value: float) -> float:
        first, last = self._x
        return round(_LEFT + (value - first) / (last - first) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        first, last = self._y
        return round(HEIGHT - _BOTTOM - (value - first) / (last - first) * (HEIGHT - _TOP - _BOTTOM), 1)


def _drawn(line: Line, scale: _Scale) -> str:
    style = line.style % STYLES
    points = [(scale.x(x), scale.y(y)) for x, y in _thinned(line.points, _MOST_POINTS)]
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    parts = [f'<g><title>{escape(line.label)}</title><path class="line s{style}" d="{path}"/>']
    every = -(-len(line.points) // _MOST_MARKERS)  # evenly spaced, with the last one
    for x, y in line.points[::-every][::-1]:
        value = f"{escape(line.label)}: {y:.4g} with {x:g}"
        parts.append(
            f'<path class="mark s{style}" d="{_marker(style, scale.x(x), scale.y(y))}"><title>{value}</title></path>'
        )
    return "".join(parts) + "</g>"


def _described(lines: Sequence[Line], title: str, x_label: str) -> str:
    ends = [
        f"{line.label} from {line.points[0][1]:.4g} with {line.points[0][0]:g} to {line.points[-1][1]:.4g} with "
        f"{line.points[-1][0]:g}"
        for line in lines[:STYLES]
    ]
    return f"{title} over {x_label}: {'; '.join(ends) or 'nothing is measured yet'}"


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Return at most so many points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _marker(style: int, x: float, y: float) -> str:
    """Return the outline of a marker as path data, another one for each style."""
    r = _R
    shapes = (
        f"M{x - r} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",  # circle
        f"M{x - r} {y - r}h{2 * r}v{2 * r}h{-2 * r}Z",  # square
        f"M{x} {y - r - 1}l{r + 0.5} {2 * r}h{-2 * r - 1}Z",  # triangle
        f"M{x} {y - r - 1}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}Z",  # diamond
        f"M{x} {y + r + 1}l{r + 0.5} {-2 * r}h{-2 * r - 1}Z",  # triangle that points down
        f"M{x - r} {y - 1}h{r - 1}v{1 - r}h2v{r - 1}h{r - 1}v2h{1 - r}v{r - 1}h-2v{1 - r}h{1 - r}Z",  # plus
        f"M{x - r} {y - r}h{2 * r}l{-r} {r}l{r} {r}h{-2 * r}l{r} {-r}Z",  # hourglass
        f"M{x - 1.5} {y - r - 1}h3v{2 * r + 2}h-3Z",  # bar
    )
    return shapes[style % STYLES]


def ticks(values: Sequence[float], about: int) -> list[float]:
    """Return round numbers, evenly spaced, from below the smallest value to above the largest.

    Parameters
    ----------
    values
        Finite; 0 to 1 is assumed where there is none.
    about
        How many numbers are wanted, roughly.
    """
    low, high = (_drawable(min(values)), _drawable(max(values))) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # it would vanish in rounding
        margin = 0.1 * abs(low) or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def _drawable(value: float) -> float:
    """Return a value whose differences and quotients are finite numbers: 0 for a tiny one, 1e100 for a huge one."""
    return 0.0 if abs(value) < 1e-100 else min(max(value, -1e100), 1e100)


def tick_text(value: float, all_ticks: Sequence[float]) -> str:
    """Return a tick as text, with as many digits as tell it from its neighbors."""
    step = all_ticks[1] - all_ticks[0]
    largest = max(abs(tick) for tick in all_ticks)
    if largest >= 1e6 or (largest < 0.01 and value):
        front, _, power = f"{value:.{max(2, math.ceil(math.log10(largest / step)))}e}".partition("e")
        return f"{front.rstrip('0').rstrip('.')}e{int(power)}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(step, round(step, digits), rel_tol=1e-6):
        digits += 1
    return f"{value:.{digits}f}"
