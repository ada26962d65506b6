"""Measure labels that are whole fields, such as the 129 x 129 values of a simulation: in the pool, and in the store.

Memory is what the process holds more at the peak than before (resident, in MB), each figure in a process of its own.

Usage: python benchmarks/fields.py [--pool 20000] [--side 129] [--labels 20] [--rows 200] [--held 2000] [--root DIR]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from alcore_metrics import RegressionMetrology

from alcore import Driver, Label, TensorPool
from alcore import config as c
from alcore.protocols import DataInfo
from alcore.strategies import BaseLabel, BaseQuery

INPUTS = 8


def pool_of(given: argparse.Namespace) -> TensorPool:
    """Return a pool whose answers are not known."""
    return TensorPool(torch.zeros(given.pool, INPUTS), info=DataInfo("regression", 0, INPUTS, (INPUTS,)))


def labels_by_value(given: argparse.Namespace) -> dict[str, Any]:
    """Append fields for samples of a pool without targets."""
    pool, field = pool_of(given), torch.rand(given.side, given.side)
    return measured(lambda: [pool.append(Label(sample, field)) for sample in range(given.labels)], pool, given.labels)


def generated(given: argparse.Namespace) -> dict[str, Any]:
    """Append generated inputs with a number each to a pool without targets."""
    pool, row = pool_of(given), torch.rand(INPUTS)
    pool.append(Label(0, 1.0))
    return measured(lambda: [pool.append((row, 1.0)) for _ in range(given.rows)], pool, given.rows)


def generated_fields(given: argparse.Namespace) -> dict[str, Any]:
    """Append generated inputs with a field each to a pool without targets."""
    pool, row, field = pool_of(given), torch.rand(INPUTS), torch.rand(given.side, given.side)
    return measured(lambda: [pool.append((row, field)) for _ in range(given.labels)], pool, given.labels)


def corrected(given: argparse.Namespace) -> dict[str, Any]:
    """Append a number by value to a pool whose targets are known: the caller's array must not be written to."""
    targets = torch.zeros(50 * given.pool)
    pool = TensorPool(torch.zeros(50 * given.pool, INPUTS), targets)
    return measured(lambda: [pool.append(Label(sample, 1.0)) for sample in range(given.rows)], pool, given.rows)


def measured(work: Callable[[], Any], pool: TensorPool, count: int) -> dict[str, Any]:
    """Do the work and read one batch; return milliseconds an append, and megabytes at the peak."""
    before = resident()
    began = time.process_time()
    work()
    seconds = time.process_time() - began
    pool.batch(torch.arange(min(4, len(pool))))
    return {"appends": count, "ms_each": round(1e3 * seconds / count, 3), "peak_mb": round(resident() - before, 1)}


def resident() -> float:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evaluated(given: argparse.Namespace) -> dict[str, Any]:
    """Measure a learner on held-out fields, which stand in memory before."""
    fields = torch.rand(given.held, given.side**2)  # flat, which any version takes
    held = TensorPool(fields, fields.clone(), labeled=range(given.held))
    metrology = RegressionMetrology()
    Driver(  # attaches the metrology
        c.DriverConfig(8, max_active_learning_steps=1, root_log_dir="not-made", device="cpu"),
        torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(held, 0, val_datapool=held),
    )
    torch.set_num_threads(1)
    before, began = resident(), time.process_time()
    metrology.compute()
    seconds = time.process_time() - began
    return {"samples": given.held, "ms": round(1e3 * seconds), "peak_mb": round(resident() - before, 1)}


class Next(BaseQuery):
    """Asks for the next samples."""

    def __init__(self, count: int) -> None:
        self.count = count

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for them."""
        query_queue.put_many(next(iter(self.driver.candidates()))[: self.count].tolist())


class Fields(BaseLabel):
    """Answers with a field each, and notes how long each put took."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.seconds: list[float] = []
        self.cpu = 0.0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Answer all requests."""
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            answer = Label(request, torch.rand(self.side, self.side))
            began, cpu = time.perf_counter(), time.process_time()
            serialize_queue.put(answer)
            self.seconds.append(time.perf_counter() - began)
            self.cpu += time.process_time() - cpu


def stored(given: argparse.Namespace) -> dict[str, Any]:
    """Buy fields in a run without training: milliseconds a label until it is durable, and bytes over its own."""
    label = Fields(given.side)
    sizes = {}
    with tempfile.TemporaryDirectory(dir=given.root) as folder:
        for count in (1, given.labels):
            driver = Driver(
                c.DriverConfig(8, max_active_learning_steps=1, skip_training=True, root_log_dir=folder, device="cpu"),
                torch.nn.Linear(INPUTS, 1),
                c.StrategiesConfig([Next(count)], queue.Queue, label),
                c.TrainingConfig(pool_of(given), 0),
            )
            driver.run()
            sizes[count] = sum(path.stat().st_size for path in Path(driver.log_dir).rglob("*") if path.is_file())
    own = 4 * given.side**2
    each = (sizes[given.labels] - sizes[1]) / (given.labels - 1)
    return {
        "labels": given.labels,
        "ms_each": round(1e3 * statistics.median(label.seconds), 2),
        "cpu_ms_each": round(1e3 * label.cpu / len(label.seconds), 2),
        "bytes_over_own": round(each / own, 3),
    }


BENCHMARKS = {
    "fields/labels": labels_by_value,
    "fields/generated": generated,
    "fields/generated-fields": generated_fields,
    "fields/corrected": corrected,
    "fields/measured": evaluated,
    "fields/stored": stored,
}


def main() -> None:
    """Print one JSON line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=20_000, help="samples")
    parser.add_argument("--side", type=int, default=129, help="a field has side x side values")
    parser.add_argument("--labels", type=int, default=20, help="fields to append, and to store")
    parser.add_argument("--rows", type=int, default=200, help="generated rows, and corrections, to append")
    parser.add_argument("--held", type=int, default=2_000, help="held-out fields to measure on")
    parser.add_argument("--root", type=Path, help="folder on the disk to measure")
    given = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alcore_metrics", "alcore.pools", "torch"])  # not imported anew by each process
    for name, work in BENCHMARKS.items():
        with context.Pool(1) as process:
            print(json.dumps({"benchmark": name, **process.apply(work, (given,))}), flush=True)


if __name__ == "__main__":
    main()
