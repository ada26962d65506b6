"""Replay the pendigits table of the scikit-activeml experiments: logistic regression, 60 rounds, no labels at first.

70 % of the digits, stratified, are the pool and 30 % are scored; features are standardized with the pool's mean and
deviation; batches of 1, 10 and 50. ``aulc`` is the mean accuracy over the rounds, ``final`` that of the last one. The
published code split another order of the rows, so that means over seeds can be compared, and not single runs.

Usage: python benchmarks/published/pendigits.py --data FOLDER [--strategy margin ...] [--batch 10 ...] [--seeds 10]
"""

from __future__ import annotations

import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import replay
import torch
from alcore_sklearn import SklearnLearner
from sklearn.model_selection import train_test_split

from alcore import DataInfo, TensorPool, plugins

ARRAYS, TABLE = "pendigits.npz", "published_skal_pendigits.csv"
ROUNDS, BATCHES, CLASSES = 60, (1, 10, 50), 10


class Row(NamedTuple):
    """A row of the table: its name there, the plugin that makes the query strategy, and whether it starts by itself."""

    published: str
    plugin: str
    parameters: dict[str, Any]
    starts: bool = False  # chooses the first batch too; otherwise that is random


STRATEGIES = {
    "random": Row("RandomSampling", "random", {}),
    "margin": Row("USMargin", "uq", {"measure": "margin"}),
    "entropy": Row("USEntropy", "uq", {"measure": "entropy"}),
    "least-confidence": Row("USLeastConfident", "uq", {"measure": "least_confidence"}),
    "core-set": Row("CoreSet", "kcenter", {"layer": "inputs"}),
    "badge": Row("Badge", "badge", {"layer": "inputs"}),
    "typiclust": Row("TypiClust", "typiclust", {"layer": "inputs"}, True),
}


def one_seed(folder: Path, strategy: str, batch: int, seed: int, root: Path | None) -> list[float]:
    """Return the accuracy after each round of one run."""
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        inputs, codes = arrays["X"].astype(np.float64), arrays["y"].astype(np.int64)
    train, test, train_codes, test_codes = train_test_split(
        inputs, codes, test_size=0.3, stratify=codes, random_state=np.random.RandomState(seed)
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    info = DataInfo("classification", CLASSES, inputs.shape[1], inputs.shape[1:])
    # the rows are shuffled by the split, so that equal scores go by chance, as in the published code
    pool = TensorPool(torch.from_numpy((train - mean) / deviation), torch.from_numpy(train_codes), (), info)
    learner = SklearnLearner("LogisticRegression", {"C": 1.0, "max_iter": 1000}, "probabilities", info=info)
    row = STRATEGIES[strategy]
    query, first = (_make(row.plugin, batch, row.parameters) for _ in range(2))
    return replay.curve(
        pool,
        ((test - mean) / deviation, test_codes),
        learner,
        query,
        start=first if row.starts else _make("random", batch, {}),
        seed=seed,
        steps=ROUNDS + 1,  # in the first one nothing is labeled, so nothing is scored
        root=root,
    )


def _make(plugin: str, batch: int, parameters: dict[str, Any]) -> Any:
    return plugins.installed().make("query", plugin, max_samples=batch, **parameters)


def published(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Return the rows of logistic regression: strategy and batch to aulc, final and their deviations."""
    with (folder / TABLE).open(encoding="utf-8") as file:
        return {
            (row["qs"], int(row["batch"])): {
                name: float(row[name]) for name in ("aulc", "aulc_sd", "final", "final_sd")
            }
            for row in csv.DictReader(file)
            if row["model"] == "LogisticRegression"
        }


def main() -> None:
    """Replay what was asked for; print a line a seed and two lines a row of the table."""
    parser = replay.arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="may be repeated; all by default")
    parser.add_argument("--batch", action="append", type=int, choices=BATCHES, help="may be repeated; all by default")
    options = parser.parse_args()
    folder = replay.folder_of(options, ARRAYS, TABLE)
    table = published(folder)
    for batch in options.batch or BATCHES:
        for strategy in options.strategy or STRATEGIES:
            began = time.perf_counter()
            tasks = [(folder, strategy, batch, seed, options.root) for seed in options.seeds]
            figures: dict[str, list[float]] = {"aulc": [], "final": []}
            for seed, curve in zip(options.seeds, replay.spread(one_seed, tasks, options.jobs), strict=True):
                run = {"aulc": statistics.fmean(curve), "final": curve[-1]}
                for name, value in run.items():
                    figures[name].append(value)
                print(json.dumps({"strategy": strategy, "batch": batch, "seed": seed} | run), flush=True)
            theirs = table[STRATEGIES[strategy].published, batch]
            for name, values in figures.items():
                mean = statistics.fmean(values)
                summary = {
                    "strategy": strategy,
                    "batch": batch,
                    "figure": name,
                    "seeds": len(values),
                    "mean": round(mean, 4),
                    "sd": round(statistics.stdev(values), 4) if len(values) > 1 else None,
                    "table_mean": theirs[name],
                    "table_sd": theirs[f"{name}_sd"],
                    "difference_in_table_sd": round((mean - theirs[name]) / theirs[f"{name}_sd"], 2),
                }
                print(json.dumps(summary | {"wall_seconds": round(time.perf_counter() - began, 1)}), flush=True)


if __name__ == "__main__":
    main()
