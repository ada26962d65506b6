"""Figures as SVG that takes its colors from the page, so that it is right in light, dark and print; and as PNG."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Axes = Any
Draw = Callable[[Axes, "Palette"], None]

_TOKENS = ("ink", "muted", "grid", "paper")
SERIES = 6
"""How many colors there are; a seventh curve has the first one again, with another line and marker."""
_LIGHT = {"ink": "#1c2024", "muted": "#5b6470", "grid": "#d5dae0", "paper": "#ffffff"}
_LIGHT_SERIES = ("#0067a5", "#b84600", "#00744f", "#a03d78", "#5a4fcf", "#7a5c00")
_LINES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (10, 3)), (0, (4, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "///", "..", "xx", "\\\\", "++")


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colors of a figure."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]

    def line(self, place: int) -> dict[str, Any]:
        """Return how a curve is drawn: line, marker and color tell it from others, each of them alone."""
        return {
            "color": self.series[place % SERIES],
            "linestyle": _LINES[place % len(_LINES)],
            "marker": _MARKERS[place % len(_MARKERS)],
            "markerfacecolor": self.paper,
            "linewidth": 1.8,
            "markersize": 4.5,
            "markeredgewidth": 1.3,
        }


LIGHT = Palette(**_LIGHT, series=_LIGHT_SERIES)
"""For pictures on white."""
_IN_PAGE = Palette(
    **{name: f"#0a0b{place:02x}" for place, name in enumerate(_TOKENS)},
    series=tuple(f"#0a0b{place:02x}" for place in range(16, 16 + SERIES)),
)
"""Colors that stand for the variables of the page; nothing else has them."""
_VARIABLES = {
    **{f"#0a0b{place:02x}": f"var(--{name})" for place, name in enumerate(_TOKENS)},
    **{f"#0a0b{place:02x}": f"var(--c{place - 16})" for place in range(16, 16 + SERIES)},
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Parameters
    ----------
    key
        Names it; unique in the page.
    title
        What it shows.
    draw
        Draws it on axes of matplotlib; on a list of them, if it has several `panels`.
    alt
        What it shows in words, for who can't see it.
    header, rows
        Its numbers.
    note
        What has to be known to read it; may be empty.
    panels
        How many axes stand beside each other.
    height
        In inches; the width is 4.8 for one panel.
    wide
        Whether it takes the whole width of the page.
    """

    key: str
    title: str
    draw: Draw
    alt: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    panels: int = 1
    height: float = 3.0
    wide: bool = False

    @property
    def svg(self) -> str:
        """The figure as an element of a page."""
        with _settings(_IN_PAGE):
            figure, axes = _new(self.panels, self.height)
            self.draw(axes[0] if self.panels == 1 else axes, _IN_PAGE)
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        return _in_page(out.getvalue(), self.key)


def empty(title: str) -> Figure:
    """Return a figure of which there is only the title."""

    def draw(axes: Axes, _palette: Palette) -> None:
        axes.set_axis_off()

    return Figure("empty", title, draw, "", (), ())


def picture(figures: Sequence[Figure], title: str) -> bytes:
    """Return figures of one panel each, two beside each other, as a PNG."""
    with _settings(LIGHT):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        columns = min(2, len(figures))
        lines = -(-len(figures) // columns)
        canvas = Canvas(figsize=(5.2 * columns, 3.3 * lines + 0.4), layout="constrained", facecolor="white")
        FigureCanvasAgg(canvas)
        canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=LIGHT.ink, wrap=True)
        axes = canvas.subplots(lines, columns, squeeze=False).ravel()
        for panel, figure in zip(axes, figures, strict=False):
            tidy(panel, LIGHT)
            figure.draw(panel, LIGHT)
            legend = panel.get_legend()
            lines_above = 0 if legend is None else -(-len(legend.get_texts()) // 2)
            panel.set_title(figure.title, fontsize=10, loc="left", pad=6 + 16 * lines_above)
        for panel in axes[len(figures) :]:
            panel.set_axis_off()
        out = io.BytesIO()
        canvas.savefig(out, format="png", dpi=150)
    return out.getvalue()


@contextlib.contextmanager
def _settings(palette: Palette) -> Iterator[None]:
    import matplotlib

    settings: Any = {
        "svg.hashsalt": "alcore",
        "svg.fonttype": "none",
        "font.size": 10,
        "text.parse_math": False,  # names may have a dollar sign
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.muted,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "grid.color": palette.grid,
        "hatch.color": palette.paper,
        "hatch.linewidth": 1.2,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has it
        yield


def _new(panels: int, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(4.8 if panels == 1 else 2.6 * panels, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        tidy(axis, _IN_PAGE)
    return figure, axes


def tidy(axes: Axes, palette: Palette) -> None:
    """Leave out what carries no information."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")


def _in_page(text: str, key: str) -> str:
    """Return an SVG file as an element: no ids that others may have, and colors of the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{key}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r'\sid="([^"]*)"', renamed, text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    text = re.sub(r'href="#', f'href="#{key}-', text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def label_ends(axes: Axes, palette: Palette, ends: Sequence[tuple[float, float, str]], gap: float = 0.075) -> None:
    """Write names beside the ends of curves, apart from each other.

    Parameters
    ----------
    axes
        With the curves on it.
    palette
        The colors.
    ends
        Place, height and name of the end of each curve.
    gap
        The least distance of two names, as a share of the height.
    """
    from alcore_report.plots import spread

    low, high = axes.get_ylim()
    order = sorted(range(len(ends)), key=lambda place: ends[place][1])
    scale = [(ends[place][1] - low) / (high - low) if high > low else 0.5 for place in order]
    for place, height in zip(order, spread(scale, gap), strict=True):
        x, y, name = ends[place]
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=palette.ink,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": palette.muted, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def image_bytes(values: np.ndarray[Any, Any], low: float, high: float) -> bytes:
    """Return an image as PNG: gray for shape (H, W), colors for (H, W, 3)."""
    from matplotlib.image import imsave

    scaled = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    out = io.BytesIO()
    if scaled.ndim == 2:
        imsave(out, scaled, cmap="gray", vmin=0, vmax=1, format="png")
    else:
        imsave(out, scaled, format="png")
    return out.getvalue()
