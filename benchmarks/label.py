"""Measure labels a second, end to end, for a function that takes no time: here, in threads and in worker processes.

The floor is measured beside it: the same calls in the bare pool, with as many in flight, and one transaction a label as
the plainest label strategy makes it (a loop that takes a request out and puts its label). The start of the workers
counts in neither. ``ratio`` is the time of the label strategy over both floors together; at most 1.3 is aimed at.

Usage: python benchmarks/label.py [--labels 2000] [--workers 2] [--in-flight 10000] [--repeats 3] [--root FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pebble
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_labelers.backends import Backend
from alcore_random import RandomQuery

from alcore import BaseLabel, Driver, Label, TensorPool
from alcore import config as c

PLACES = ("here", "threads", "processes")


def instant(point: Any) -> int:
    """Return a label at once."""
    return int(point[0] > 0)


class Plain(BaseLabel):
    """Takes one request out, puts its label, and so on; measures how long that takes."""

    idempotent = True
    seconds = 0.0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Label everything."""
        began = time.perf_counter()
        while not queue_to_label.empty():
            serialize_queue.put(Label(queue_to_label.get_request(), 1))
        self.seconds = time.perf_counter() - began


class Timed(FunctionLabelStrategy):
    """Measures how long its labeling takes, without the start and the end of the workers."""

    seconds = 0.0
    beside = 0.0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Label everything."""
        self.beside, began = 0.0, time.perf_counter()
        super().label(queue_to_label, serialize_queue, *args, **kwargs)
        self.seconds = time.perf_counter() - began - self.beside

    def _make_backend(self) -> Backend:
        began = time.perf_counter()
        backend = super()._make_backend()
        warm(backend.submit, self)
        close = backend.close

        def timed_close() -> None:
            begun = time.perf_counter()
            close()
            self.beside += time.perf_counter() - begun

        backend.close = timed_close  # type: ignore[method-assign]
        self.beside += time.perf_counter() - began
        return backend


def warm(submit: Callable[[Any], Any], strategy: Timed) -> None:
    """Wait until the workers answer."""
    from alcore_labelers.calls import Inputs

    for future in [submit(Inputs([0.0], 1, 0)) for _ in range(2 * strategy._workers)]:
        future.result()


def labeling(root: Path, name: str, strategy: Any, labels: int) -> float:
    """Return the seconds that a label strategy takes in a run."""
    inputs = torch.randn(labels + 4, 2)
    driver = Driver(
        c.DriverConfig(
            batch_size=4, max_active_learning_steps=1, skip_training=True, device="cpu", root_log_dir=root, run_id=name
        ),
        torch.nn.Linear(2, 2),
        c.StrategiesConfig([RandomQuery(max_samples=labels)], queue.Queue, strategy),
        c.TrainingConfig(TensorPool(inputs, torch.zeros(len(inputs), dtype=torch.int64), labeled=range(4)), 1),
    )
    driver.run()
    assert len(driver.train_datapool) == len(inputs), driver.stop_reason
    seconds: float = strategy.seconds
    return seconds


def bare(place: str, labels: int, workers: int) -> float:
    """Return the seconds that the calls take in the bare pool, all of them in flight."""
    points = torch.randn(labels, 2).numpy()
    if place == "here":
        began = time.perf_counter()
        for point in points:
            instant(point)
        return time.perf_counter() - began
    pool: Any = pebble.ThreadPool(max_workers=workers)
    if place == "processes":
        pool = pebble.ProcessPool(max_workers=workers, context=multiprocessing.get_context("forkserver"))
    with pool:
        for future in [pool.schedule(instant, args=(points[0],)) for _ in range(2 * workers)]:
            future.result()
        began = time.perf_counter()
        for future in [pool.schedule(instant, args=(point,)) for point in points]:
            future.result()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"labels": 2000, "workers": 2, "in-flight": 10_000, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--root", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.root) as folder:
        for place in PLACES:
            rounds = []
            for i in range(options.repeats):
                elsewhere = {"workers": options.workers, "max_in_flight": options.in_flight}
                strategy = Timed(instant, place, **({} if place == "here" else elsewhere))
                seconds = labeling(Path(folder), f"{place}-{i}", strategy, options.labels)
                floors = (
                    bare(place, options.labels, options.workers),
                    labeling(Path(folder), f"{place}-{i}-plain", Plain(), options.labels),
                )
                rounds.append((seconds, *floors))
            seconds, calls, puts = (statistics.median(column) for column in zip(*rounds, strict=True))
            row = {
                "name": f"label/{place}",
                "labels_a_second": round(options.labels / seconds, 1),
                "bare_calls_a_second": round(options.labels / calls, 1),
                "bare_puts_a_second": round(options.labels / puts, 1),
                "ratio": round(statistics.median(s / (a + b) for s, a, b in rounds), 3),
                "limit": 1.3,
                "repeats": options.repeats,
                "labels": options.labels,
                "workers": 1 if place == "here" else options.workers,
                "cpus": os.cpu_count(),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
