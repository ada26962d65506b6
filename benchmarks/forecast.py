"""Measure how often ``alcore forecast`` is right: its 90% intervals, and its word that more labels will help.

Each run is cut at half of its measurements; what comes after is forecast from what came before, at most `--ahead`
labels ahead, and compared with what was measured there. Beside it stands the forecast that the metric stays as it is:
how far each is off, as a share of the range that was measured before the cut. `said` is how often it says that more
labels will help, and `right` how often the mean over the seeds of the run's arm was better there then; `improved` is
how often it was over all runs.

Usage: python benchmarks/forecast.py FOLDER|FILE.csv... [--set-on NAME...] [--metric NAME] [--ahead 100]

A FOLDER holds runs on one data set, such as those of ``alcore benchmark``; a file holds their curves, as
``alcore compare --csv`` writes it. `--set-on` names those on which the prior was set, which are counted apart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from alcore_report import curves_of_runs, curves_of_table
from alcore_report.curves import Curve, lower_is_better, metric_name, points_of
from alcore_report.forecasting import FEWEST, bounds_of, forecast

from alcore.store import run_folders


def judged(curve: Curve, arm: Sequence[Curve], metric: str | None, most: int) -> dict[str, float] | None:
    """Return what was forecast for a run and what was measured; None for a run that is too short.

    `arm` are the runs of its arm, itself among them.
    """
    name = metric_name([curve], metric)
    labels, values = points_of(curve, name, over_cost=False)
    cut = len(labels) // 2
    if cut < FEWEST or np.ptp(values[:cut]) == 0:
        return None
    place = cut - 1 + int(np.searchsorted(labels[cut - 1 :], labels[cut - 1] + most, side="right")) - 1
    ahead = forecast(labels[:cut], values[:cut], labels[place : place + 1], bounds=bounds_of(name, values[:cut]))
    low, high, expected = (float(values_ahead[0]) for values_ahead in (ahead.low, ahead.high, ahead.expected))
    truth, now, scale = float(values[place]), float(values[cut - 1]), float(np.ptp(values[:cut]))
    sign = -1 if lower_is_better(name) else 1
    changes = [_change(other, name, float(labels[cut - 1]), float(labels[place])) for other in arm]
    improved = float(sign * np.nanmean(changes) > 0)
    said = float(min(sign * ahead.change_low[0], sign * ahead.change_high[0]) > 0)
    return {
        "held": float(low <= truth <= high),
        "width": (high - low) / scale,
        "off": abs(expected - truth) / scale,
        "off_unchanged": abs(now - truth) / scale,
        "ahead": float(labels[place] - labels[cut - 1]),
        "improved": improved,
        "said": said,
        "right": improved if said else math.nan,
    }


def _change(curve: Curve, metric: str, before: float, after: float) -> float:
    """Return how much a run's metric changed between two numbers of labels; NaN where it wasn't measured at both."""
    labels, values = points_of(curve, metric, over_cost=False)
    at = dict(zip(labels.tolist(), values.tolist(), strict=True))
    return float(at.get(after, math.nan) - at.get(before, math.nan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="FOLDER|FILE.csv")
    parser.add_argument("--set-on", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--metric")
    parser.add_argument("--ahead", type=int, default=100)
    options = parser.parse_args()
    groups: dict[str, list[dict[str, float]]] = {}
    for place in options.places:
        curves = curves_of_table(place) if place.is_file() else curves_of_runs(run_folders(place)).curves
        part = "set on" if place.stem in options.set_on else "held back"
        for curve in curves:
            arm = [other for other in curves if other.arm == curve.arm]
            if (judgment := judged(curve, arm, options.metric, options.ahead)) is not None:
                groups.setdefault(f"{part}/{place.stem}", []).append(judgment)
                groups.setdefault(part, []).append(judgment)
    for name, judgments in sorted(groups.items()):
        means = {key: _mean([judgment[key] for judgment in judgments]) for key in judgments[0]}
        print(json.dumps({"name": f"forecast/{name}", "runs": len(judgments), **means}), flush=True)


def _mean(figures: Sequence[float]) -> float | None:
    """Return the mean of the figures that are there."""
    there = [figure for figure in figures if not math.isnan(figure)]
    return round(float(np.mean(there)), 3) if there else None


if __name__ == "__main__":
    main()
