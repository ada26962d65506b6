"""Draw the learning curves of the examples on real data side by side, with what the comparison says of each.

The curves are those that the examples' READMEs report; `alcore compare NAME --csv FILE` wrote them,
of which the columns here are a part.

Usage: python examples/figure.py [FILE]      (docs/images/examples.png if it is not given)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alcore_report import Comparison, Found, compare_curves, curves_of_table

HERE = Path(__file__).resolve().parent
PANELS = {
    "digits/digits.csv": "Handwritten digits, CNN",
    "texts/films.csv": "Sentences about films, TF-IDF",
    "tabular/banana20.csv": "banana, a table of 2 features",
}
STYLES = (("#0072B2", "-"), ("#555555", (0, (3, 2))))


def comparison_of(table: Path) -> Comparison:
    """Compare the arms of a table of curves by the metric that it has."""
    return compare_curves(Found(curves_of_table(table)))


def draw(panel: Any, title: str, comparison: Comparison) -> None:
    """Draw the mean curve of each arm with its 95% interval, the ceiling, and the outcome."""
    (axis,) = comparison.axes
    for (color, line), arm in zip(STYLES, axis.arms.values(), strict=True):
        panel.plot(axis.x, arm.mean, color=color, linestyle=line, linewidth=1.8, label=arm.arm)
        panel.fill_between(axis.x, arm.low, arm.high, color=color, alpha=0.15, linewidth=0)
    if comparison.ceiling is not None:
        every = f"all {comparison.ceiling_labels:.0f} labels"
        panel.axhline(comparison.ceiling.value, color="black", linestyle=(0, (1, 1.5)), linewidth=1.2, label=every)
    ((chosen, verdict),) = axis.verdicts.items()
    words = {"better": "better than", "worse": "worse than"}.get(verdict.outcome)
    outcome = f"{chosen} {words} {comparison.baseline}" if words else verdict.outcome
    panel.set_title(
        f"{title}\n{outcome}, p = {verdict.adjusted_p:.2g}, {verdict.seeds} seeds", fontsize=8.5, loc="left"
    )
    panel.set_xlabel("labeled samples")
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.legend(frameon=False, loc="lower right", fontsize=9)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "docs" / "images" / "examples.png"
    figure, panels = plt.subplots(1, len(PANELS), figsize=(10.5, 3.5), layout="constrained")
    for panel, (table, title) in zip(panels, PANELS.items(), strict=True):
        draw(panel, title, comparison_of(HERE / table))
    panels[0].set_ylabel("accuracy on samples that are held out")
    figure.savefig(path, dpi=120)
    print(path)


if __name__ == "__main__":
    main()
