"""Replay Lu, Li and Lin 2023 (arXiv 2306.08954): an RBF SVM, one label a step, until the pool is empty.

The split, the order of the pool, the scaling and the area under the curve are those of the published code
(ariapoy/active-learning-benchmark), so that margin sampling gives the published figure of each seed to its last
digit. Each run is one of the Driver, with the plugins alcore-sklearn and alcore-uq (alcore-diversity for core-set).

Usage: python benchmarks/published/lu2023.py --data FOLDER [sonar wdbc ...] [--strategy us-c ...] [--seeds 10]
"""

from __future__ import annotations

import csv
import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import replay
import torch
from alcore_sklearn import SklearnLearner, SklearnUncertaintyQuery
from alcore_uq import ClassifierUQQuery

from alcore import DataInfo, TensorPool, plugins

ARRAYS, TABLE = "zhan21_binary_shared.npz", "published_lu2023_aubc.csv"
PER_SEED = "published_lu2023_margin_per_seed.csv.gz"
DATASETS = ("sonar", "heart", "parkinsons", "ionosphere", "wdbc", "appendicitis", "ex8b")
STRATEGIES = {"us-c": "US-C", "uniform": "Uniform", "us-nc": "US-NC", "core-set": "Core-Set"}
INITIAL = 20
IN_TABLE = 100  # seeds that the table is a mean over
DIGITS = 5e-6  # published figures have five decimals


class Split(NamedTuple):
    """Scaled inputs and class codes; the rows of the training part stand in the order of the pool."""

    train: np.ndarray[Any, Any]
    train_codes: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]
    test_codes: np.ndarray[Any, Any]


def split(inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], seed: int) -> Split | None:
    """Return the parts of a seed, or None where the first 20 labels are of one class."""
    order = np.arange(len(inputs))
    np.random.default_rng(seed).shuffle(order)
    train, test = order[: int(0.6 * len(order))].copy(), order[int(0.6 * len(order)) :]
    np.random.default_rng(seed).shuffle(train)
    codes = (labels > 0).astype(np.int64)
    if len(set(codes[train[:INITIAL]])) < 2:
        return None
    mean, deviation = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    scaled = (inputs - mean) / np.where(deviation == 0, 1.0, deviation)
    return Split(scaled[train], codes[train], scaled[test], codes[test])


def make_query(strategy: str) -> Any:
    """Return the query strategy of a row of the table."""
    if strategy == "us-c":
        return ClassifierUQQuery(1, measure="margin")
    if strategy == "us-nc":
        return SklearnUncertaintyQuery(1, "LogisticRegression", {"C": 0.1}, measure="entropy", order="pool")
    if strategy == "core-set":
        return plugins.installed().make("query", "kcenter", max_samples=1, layer="inputs")
    return replay.NextQuery(1)


def area(accuracies: list[float]) -> float:
    """Return the published area: trapezoids over the accuracies after query 1 ... q, divided by q."""
    return float(np.trapezoid(accuracies)) / len(accuracies)


def one_seed(folder: Path, dataset: str, strategy: str, seed: int, root: Path | None) -> tuple[float | None, float]:
    """Return the area of one run, or None where the seed is skipped, and how many seconds it took."""
    began = time.perf_counter()
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        parts = split(arrays[f"{dataset}_X"], arrays[f"{dataset}_y"], seed)
    if parts is None:
        return None, 0.0
    features = parts.train.shape[1]
    info = DataInfo("classification", 2, features, (features,))
    pool = TensorPool(torch.from_numpy(parts.train), torch.from_numpy(parts.train_codes), range(INITIAL), info)
    # samples are fitted in the order of the pool, as the published code does
    learner = SklearnLearner("SVC", {"C": 1.0, "gamma": "auto"}, "decision", order="pool", info=info)
    accuracies = replay.curve(
        pool, (parts.test, parts.test_codes), learner, make_query(strategy), seed=seed, steps=None, root=root
    )
    return area(accuracies[1:]), time.perf_counter() - began


def published(folder: Path) -> tuple[dict[tuple[str, int], float], dict[tuple[str, str], tuple[float, float]]]:
    """Return the areas of margin sampling by seed, and mean and deviation of the table by strategy."""
    with gzip.open(folder / PER_SEED, "rt", encoding="utf-8") as file:
        by_seed = {
            (row["dataset"], int(row["seed"])): float(row["aubc_margin_rbfsvm"])
            for row in csv.DictReader(file)
            if row["aubc_margin_rbfsvm"]
        }
    with (folder / TABLE).open(encoding="utf-8") as file:
        table = {
            (row["dataset"], row["strategy"]): (float(row["aubc_mean"]), float(row["aubc_std"]))
            for row in csv.DictReader(file)
            if row["aubc_mean"]
        }
    return by_seed, table


def main() -> None:
    """Replay what was asked for; print a line a seed and a line a figure of the table."""
    parser = replay.arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"of {ARRAYS}; by default {' '.join(DATASETS)}")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="may be repeated; us-c by default")
    options = parser.parse_args()
    folder = replay.folder_of(options, ARRAYS, TABLE, PER_SEED)
    by_seed, table = published(folder)
    for dataset in options.datasets or DATASETS:
        for strategy in options.strategy or ["us-c"]:
            began = time.perf_counter()
            tasks = [(folder, dataset, strategy, seed, options.root) for seed in options.seeds]
            areas, differences = [], []
            for seed, (ours, seconds) in zip(options.seeds, replay.spread(one_seed, tasks, options.jobs), strict=True):
                theirs = by_seed.get((dataset, seed)) if strategy == "us-c" else None
                line: dict[str, Any] = {"dataset": dataset, "strategy": strategy, "seed": seed, "ours": ours}
                if ours is not None:
                    areas.append(ours)
                if theirs is not None and ours is not None:
                    differences.append(abs(ours - theirs))
                    line |= {"theirs": theirs, "difference": ours - theirs}
                print(json.dumps(line | {"seconds": round(seconds, 2)}), flush=True)
            print(json.dumps(_summary(dataset, strategy, areas, differences, table, began)), flush=True)


def _summary(
    dataset: str,
    strategy: str,
    areas: list[float],
    differences: list[float],
    table: dict[tuple[str, str], tuple[float, float]],
    began: float,
) -> dict[str, Any]:
    counted = areas[:IN_TABLE]
    theirs, deviation = table.get((dataset, STRATEGIES[strategy]), (None, None))
    summary: dict[str, Any] = {
        "dataset": dataset,
        "strategy": strategy,
        "seeds": len(areas),
        "mean": round(statistics.fmean(counted), 6) if counted else None,
        "sd": round(statistics.stdev(counted), 6) if len(counted) > 1 else None,
        "mean_over": len(counted),
        "table_mean": theirs,
        "table_sd": deviation,
    }
    if differences:
        equal = sum(difference <= DIGITS * 1.001 for difference in differences)
        summary |= {"compared": len(differences), "equal": equal, "largest_difference": max(differences)}
    return summary | {"wall_seconds": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    main()
