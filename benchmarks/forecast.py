"""Measure how often the 90% interval of ``alcore forecast`` holds what a run measured later.

Each run is cut at half of its measurements; what comes after is forecast from what came before, at most 100 labels
ahead, and compared with what was measured there. Beside it stands the forecast that the metric stays as it is: how far
each is off, as a share of the range that was measured before the cut.

Usage: python benchmarks/forecast.py FOLDER|FILE.csv... [--set-on NAME...] [--metric NAME]

A FOLDER holds runs on one data set, such as those of ``alcore benchmark``; a file holds their curves, as
``alcore compare --csv`` writes it. `--set-on` names those on which the prior was set, which are counted apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from alcore_report import curves_of_runs, curves_of_table
from alcore_report.curves import Curve, metric_name, points_of
from alcore_report.forecasting import FEWEST, bounds_of, forecast

from alcore.store import run_folders

AHEAD = 100


def judged(curve: Curve, metric: str | None) -> dict[str, float] | None:
    """Return what was forecast for a run and what was measured; None for a run that is too short."""
    labels, values = points_of(curve, metric_name([curve], metric), over_cost=False)
    cut = len(labels) // 2
    if cut < FEWEST or np.ptp(values[:cut]) == 0:
        return None
    place = cut - 1 + int(np.searchsorted(labels[cut - 1 :], labels[cut - 1] + AHEAD, side="right")) - 1
    bounds = bounds_of(metric_name([curve], metric), values[:cut])
    ahead = forecast(labels[:cut], values[:cut], labels[place : place + 1], bounds=bounds)
    low, high, expected = (float(values_ahead[0]) for values_ahead in (ahead.low, ahead.high, ahead.expected))
    truth, now, scale = float(values[place]), float(values[cut - 1]), float(np.ptp(values[:cut]))
    return {
        "held": float(low <= truth <= high),
        "width": (high - low) / scale,
        "off": abs(expected - truth) / scale,
        "off_unchanged": abs(now - truth) / scale,
        "ahead": float(labels[place] - labels[cut - 1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="FOLDER|FILE.csv")
    parser.add_argument("--set-on", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--metric")
    options = parser.parse_args()
    groups: dict[str, list[dict[str, float]]] = {}
    for place in options.places:
        curves = curves_of_table(place) if place.is_file() else curves_of_runs(run_folders(place)).curves
        part = "set on" if place.stem in options.set_on else "held back"
        for curve in curves:
            if (one := judged(curve, options.metric)) is not None:
                groups.setdefault(f"{part}/{place.stem}", []).append(one)
                groups.setdefault(part, []).append(one)
    for name, judgments in sorted(groups.items()):
        means = {key: round(float(np.mean([judgment[key] for judgment in judgments])), 3) for key in judgments[0]}
        print(json.dumps({"name": f"forecast/{name}", "runs": len(judgments), **means}), flush=True)


if __name__ == "__main__":
    main()
