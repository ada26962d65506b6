"""Measure the learner that tables get, beside scikit-learn's models as they come on the same labels and inputs.

Each table is run as ``alcore run FILE.csv --target y`` runs it, with labels drawn at random up to 1000, and measured
where there are 50, 200 and 1000 of them, on at most 2000 rows that are held out. Defaults are chosen on the half of the
tables that `tables.py` names, and reported on the other one (``--half held-back``).

Usage: python benchmarks/tables/measure.py [--half chosen-on] [--kind regression] [--table NAME] [--seeds 5] [--jobs 1]
           [--as NAME] [--learner NAME] [--loop NAME] [--set KIND.NAME.PARAMETER=VALUE]... [--rivals] [--root FOLDER]

One JSON line for each table, seed, model and number of labels.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import of_classes, of_shares, of_values
from parts import SIZES, TrainingClock
from rivals import classifiers, probabilities, regressors
from tables import CHOSEN_ON, KINDS, LABELS, ROWS, SEEDS

from alcore import experiment, plugins
from alcore.randomness import seed_everything

HERE = Path(__file__).resolve().parent


def driver_of(path: Path, seed: int, given: argparse.Namespace, root: Path) -> tuple[Any, TrainingClock]:
    """Return the driver of a run on a table, and the clock of its trainings."""
    with path.open(encoding="utf-8") as file:
        targets = [row[-1] for row in csv.reader(file)][1:]
    rows, start = len(targets), SIZES[0]
    if path.stem in KINDS["classification"]:
        start = max(start, len(set(targets)))  # one of each class, which is what the data wants
    held_out = min(ROWS, rows // 3)
    chosen = experiment.Experiment.open(path, registry := plugins.installed())
    chosen.choose("query", ["parts:UpToNext"])
    chosen.choose("metrology", ["parts:Measured"])
    for kind in ("learner", "loop"):
        if (name := getattr(given, kind)) is not None:
            chosen.choose(kind, [name])
    chosen.complete()
    chosen.parts["data"][0].values |= {"target": "y", "initial": start, "validation": held_out / rows, "seed": seed}
    steps = len([size for size in SIZES if size <= rows - held_out]) - 1
    for text in (
        f"driver.max_active_learning_steps={steps}", f"driver.seed={seed}", f"driver.root_log_dir={root}",
        f"driver.skip_training={str(given.rivals).lower()}", "driver.final_training=true", "driver.keep=last=1",
        "driver.threads=1", *given.set,
    ):  # fmt: skip
        chosen.set(text)
    clock = TrainingClock()
    resolved = experiment.resolve(chosen, registry)
    seed_everything(seed)
    return experiment.build(resolved, observers=[clock]), clock


def measured(name: str, seed: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of a table and a seed, at each number of labels that it has."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.root) as folder, contextlib.redirect_stderr(io.StringIO()):
        driver, clock = driver_of(HERE / "data" / f"{name}.csv", seed, given, Path(folder))
        driver.run()
    about = {"table": name, "seed": seed}
    if not given.rivals:
        for record in driver.metrology_strategies[0].records:
            figures = {
                key: value for key, value in record.items() if key not in ("step", "train_samples", "on", "time")
            }
            yield {**about, "model": given.name, **figures, "cpu": clock.seconds[record["labels"]]}
        return
    pool, held_out = driver.train_datapool, driver.val_datapool
    inputs, true = (part.double().numpy() for part in held_out.batch(torch.arange(len(held_out))))
    for labels in (count for count in LABELS if count <= len(pool)):
        known, targets = (part.double().numpy() for part in pool.batch(torch.arange(labels)))
        for row in _rivals(driver.info, known, targets, inputs, true, seed):
            yield {**about, "labels": labels, **row}


def _rivals(info: Any, known: Any, targets: Any, inputs: Any, true: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of the rivals on the same labels and inputs."""
    if info.task == "classification":
        targets, true = targets.astype(int), true.astype(int)
        yield {"model": "shares", "log_loss": of_shares(targets, true, info.classes)}
        for name, model in classifiers(seed).items():
            begun = time.process_time()
            model.fit(known, targets)
            cpu = time.process_time() - begun
            yield {"model": name, **of_classes(probabilities(model, inputs, info.classes), true), "cpu": cpu}
        return
    targets, true = targets.ravel(), true.ravel()
    for name, model in regressors(seed, known.shape[1]).items():
        begun = time.process_time()
        model.fit(known, targets)
        cpu = time.process_time() - begun
        both = model.predict(inputs, return_std=True) if name == "GP" else (model.predict(inputs), None)
        yield {"model": name, **of_values(*both, true), "cpu": cpu}


def _job(job: tuple[str, int, argparse.Namespace]) -> list[dict[str, Any]]:
    return list(measured(*job))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("chosen-on", "held-back"), default="chosen-on")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--table", action="append")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--as", dest="name", default="alcore")
    parser.add_argument("--learner")
    parser.add_argument("--loop")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rivals", action="store_true", help="measure scikit-learn's models in place of alcore's")
    parser.add_argument("--root", type=Path, help="where run directories are made and removed; the temporary folder")
    given = parser.parse_args()
    names = [
        name
        for kind in given.kind or KINDS
        for name in KINDS[kind]
        if (name in CHOSEN_ON[kind]) == (given.half == "chosen-on") and name in (given.table or KINDS[kind])
    ]
    jobs = [(name, seed, given) for name in names for seed in SEEDS[: given.seeds]]
    with ProcessPoolExecutor(given.jobs) as processes:
        for rows in processes.map(_job, jobs):
            for row in rows:
                plain = {key: round(v, 5) if isinstance(v, float | np.floating) else v for key, v in row.items()}
                print(json.dumps(plain), flush=True)


if __name__ == "__main__":
    main()
