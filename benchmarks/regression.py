"""Measure the built-in network on regression tables against ridge regression on the same labels.

A curve over the number of labels says something about labels only if the network uses them as well as a simple model
does. Each table is written as CSV, and run as ``alcore run --data csv --metrology regression --query random`` with its
defaults. Ridge regression of scikit-learn is fitted to the same labeled samples and measured on the same held-out ones,
with the inputs standardized as they are for the network: ``Ridge()``, and ``RidgeCV`` over 13 strengths, 1e-3 to 1e3.
Every figure is a mean of R2 over the seeds, which also decide what is held out and labeled.

Usage: python benchmarks/regression.py [--seeds 10] [--labels 20] [--start 10] [--set NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3, make_regression
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score

from alcore import experiment, plugins
from alcore.randomness import seed_everything

SETS: dict[str, Callable[[], Any]] = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: make_friedman1(1000, noise=1.0, random_state=0),
    "friedman2": lambda: make_friedman2(1000, noise=50.0, random_state=0),
    "friedman3": lambda: make_friedman3(1000, noise=0.1, random_state=0),
    "linear": lambda: make_regression(1000, 10, n_informative=5, noise=10.0, random_state=0),
}


def write(path: Path, inputs: Any, targets: Any) -> None:
    """Write a table whose last column ``y`` is the target."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(f"x{column}" for column in range(inputs.shape[1])), "y"])
        rows.writerows([*one, target] for one, target in zip(inputs, targets, strict=True))


def driver_of(path: Path, seed: int, start: int, labels: int, root: Path) -> Any:
    """Return the driver of a run that begins with `start` labels, and has `labels` in its last step."""
    chosen = experiment.Experiment()
    for kind, name in (("data", "csv"), ("query", "random"), ("metrology", "regression")):
        chosen.choose(kind, [name])
    chosen.complete()
    pick = 5
    steps = 1 + (labels - start) // pick
    for text in (
        f"data.csv.path={path}", "data.csv.target=y", f"data.csv.initial={start}", f"data.csv.seed={seed}",
        f"query.random.max_samples={pick}", f"driver.max_active_learning_steps={steps}", f"driver.seed={seed}",
        f"driver.root_log_dir={root}",
    ):  # fmt: skip
        chosen.set(text)
    seed_everything(seed)
    return experiment.build(experiment.resolve(chosen, plugins.installed()))


def ridge(driver: Any, labels: int) -> tuple[float, float]:
    """Return R2 of both ridge regressions on the first labels of a run."""
    train, held = driver.train_datapool, driver.val_datapool
    inputs, targets = (part.double().numpy() for part in train.batch(torch.arange(labels)))
    new, true = (part.double().numpy() for part in held.batch(torch.arange(len(held))))
    models = Ridge(), RidgeCV(np.logspace(-3, 3, 13))
    one, best = (float(r2_score(true, model.fit(inputs, targets).predict(new))) for model in models)
    return one, best


def measure(name: str, seeds: int, start: int, labels: int) -> dict[str, Any]:
    """Return the figures of one set."""
    found: dict[str, list[float]] = {"network": [], "ridge": [], "ridge_cv": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        write(path, *SETS[name]())
        for seed in range(seeds):
            with contextlib.redirect_stderr(io.StringIO()):
                driver = driver_of(path, seed, start, labels, Path(folder) / "runs")
                driver.run()
            record = driver.metrology_strategies[0].records[-1]
            assert record["train_samples"] == labels, "labels must be a multiple of 5 more than start"
            found["network"].append(record["r2"])
            for kind, value in zip(("ridge", "ridge_cv"), ridge(driver, labels), strict=True):
                found[kind].append(value)
    means = {kind: round(statistics.mean(values), 3) for kind, values in found.items()}
    return {"benchmark": f"regression/{name}", "labels": labels, "start": start, "seeds": seeds, **means}


def main() -> None:
    """Print one JSON line for each set, with the labels given at once, and by steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--labels", type=int, default=20, help="labels in the step that counts")
    parser.add_argument("--start", type=int, default=10, help="labels at the start of the run by steps of 5")
    parser.add_argument("--set", choices=SETS, action="append", help="one set; may repeat")
    given = parser.parse_args()
    for name in given.set or SETS:
        for start in dict.fromkeys((given.labels, given.start)):
            print(json.dumps(measure(name, given.seeds, start, given.labels)), flush=True)


if __name__ == "__main__":
    main()
