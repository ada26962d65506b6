"""Measure what the choice of 100 samples costs as the pool grows: a whole run of one step, without training.

Each size is a run in a process of its own: pool on disk, memory-mapped, 64 float32 a sample; driver, run directory and
all. CPU seconds of the query phase on one thread, of the best of several runs; memory is what the run adds to what
stood after imports. The law fitted is seconds = a + b samples.

Usage: python benchmarks/query/scaling.py [--rows 10000 100000 1000000 10000000] [--learner linear mlp] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from query import peak, write_rows

LEARNERS = {
    "linear": lambda: torch.nn.Linear(64, 10),
    "mlp": lambda: torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)),
}
PHASES: dict[str, float] = {}


def run(path: str, learner: str, root: str) -> None:
    """Run one step; note how long its query phase took."""
    from alcore_uq import ClassifierUQQuery

    import alcore
    from alcore import Driver, TensorPool
    from alcore import config as c

    class Clock:
        @alcore.runhook
        def alcore_phase_start(self, phase: Any) -> None:
            PHASES[phase] = time.process_time()

        @alcore.runhook
        def alcore_phase_end(self, phase: Any) -> None:
            PHASES[phase] = time.process_time() - PHASES[phase]

    torch.manual_seed(0)
    driver = Driver(
        c.DriverConfig(
            batch_size=32, max_active_learning_steps=1, skip_training=True, root_log_dir=root, device="cpu", seed=0
        ),
        LEARNERS[learner](),
        c.StrategiesConfig([ClassifierUQQuery(100, "entropy")], queue.Queue),
        c.TrainingConfig(TensorPool(np.load(path, mmap_mode="r")), max_training_epochs=0),
        plugins=[Clock()],
    )
    driver.run()


def one(options: argparse.Namespace) -> None:
    """Measure one size, in this process; memory first, since what was freed may stay with the process."""
    with tempfile.TemporaryDirectory() as root:
        row = {"mb": peak(lambda: run(options.path, options.learner[0], root)), "seconds": float("inf")}
        for _ in range(options.repeats):
            run(options.path, options.learner[0], root)
            row["seconds"] = min(row["seconds"], PHASES["query"])
        print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--learner", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.path:
        one(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes, seconds = np.array(options.rows, dtype=float), {name: [] for name in options.learner}
        for rows in options.rows:
            path = str(Path(folder) / f"{rows}.npy")
            write_rows(path, rows)
            for name in options.learner:
                command = [
                    sys.executable,
                    __file__,
                    "--path",
                    path,
                    "--learner",
                    name,
                    "--repeats",
                    str(options.repeats),
                ]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds[name].append(row["seconds"])
                figures = {key: round(value, 4) for key, value in row.items()}
                print(json.dumps({"name": f"scaling/{name}", "samples": rows, **figures}), flush=True)
            Path(path).unlink()
        for name, times in seconds.items():  # least squares of the relative errors
            design = np.stack([1 / np.array(times), sizes / np.array(times)], axis=1)
            a, b = np.linalg.lstsq(design, np.ones(len(times)), rcond=None)[0]
            law = {"a_seconds": round(a, 5), "b_nanoseconds": round(b * 1e9, 2)}
            print(json.dumps({"name": f"scaling/{name}/law", **law}), flush=True)


if __name__ == "__main__":
    main()
