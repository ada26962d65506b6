"""Measure labels a second, end to end, for a function that takes no time: here, in threads, in worker processes, and in
workers that share a folder, or a Redis or Valkey server, with the run.

The floor is measured beside it: the same calls in the bare pool, with as many in flight, and one transaction a label as
the plainest label strategy makes it (a loop that takes a request out and puts its label). Where there are workers it is
the bare exchange (`label_floors.py`), and one transaction for as many labels as the strategy puts at once. The start of
the workers counts in neither. ``ratio`` is the time of the label strategy over both floors together; at most 1.3 is
aimed at, but for workers: they write a file, or make some calls, for each task, and their floor does so for many at
once.

Usage: python benchmarks/label.py [PLACE ...] [--labels 2000] [--workers 2] [--in-flight 10000] [--repeats 3]
       [--root FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import queue
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import label_floors as floors
import pebble
import torch
from alcore_labelers import FunctionLabelStrategy
from alcore_labelers.backends import Backend
from alcore_random import RandomQuery
from alcore_worker import Worker, WorkerLabelStrategy, open_exchange

from alcore import BaseLabel, BaseQuery, Driver, Label, TensorPool
from alcore import config as c

POOLS = ("here", "threads", "processes")
EXCHANGES = ("folder", *floors.SERVERS)
_WARM_UP = 100  # labels of a step that isn't measured, after which workers look for work often


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


class PlainMany(Plain):
    """Takes many requests out, and puts their labels in one transaction; measures how long that takes."""

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Label everything."""
        began = time.perf_counter()
        requests = queue_to_label.get_many(queue_to_label.qsize())
        for start in range(0, len(requests), floors.AT_ONCE):
            serialize_queue.put_many([Label(request, 1) for request in requests[start : start + floors.AT_ONCE]])
        self.seconds = time.perf_counter() - began


class TimedWorkers(WorkerLabelStrategy):
    """Measures how long its last labeling phase takes."""

    seconds = 0.0

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Label everything."""
        began = time.perf_counter()
        super().label(queue_to_label, serialize_queue, *args, **kwargs)
        self.seconds = time.perf_counter() - began


class AskMany(BaseQuery):
    """Asks for a few samples in step 0, and for the others in step 1."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Put the samples."""
        candidates = torch.cat(list(self.driver.candidates(2**20)))
        query_queue.put_many((candidates if self.driver.active_learning_step_idx else candidates[:_WARM_UP]).tolist())


def labeling(root: Path, name: str, strategy: Any, labels: int, steps: int = 1) -> float:
    """Return the seconds that a label strategy takes in a run, in its last step."""
    inputs = torch.randn(labels + 4 + _WARM_UP * (steps - 1), 2)
    query = RandomQuery(max_samples=labels) if steps == 1 else AskMany()
    driver = Driver(
        c.DriverConfig(
            batch_size=4,
            max_active_learning_steps=steps,
            skip_training=True,
            device="cpu",
            root_log_dir=root,
            run_id=name,
        ),
        torch.nn.Linear(2, 2),
        c.StrategiesConfig([query], queue.Queue, strategy),
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


def in_pool(place: str, root: Path, labels: int, workers: int, in_flight: int) -> tuple[float, float, float]:
    """Return the seconds of the label strategy, of the calls in the bare pool, and of the transactions."""
    elsewhere = {"workers": workers, "max_in_flight": in_flight}
    strategy = Timed(instant, place, **({} if place == "here" else elsewhere))
    seconds = labeling(root, "run", strategy, labels)
    return seconds, bare(place, labels, workers), labeling(root, "plain", Plain(), labels)


def in_workers(place: str, root: Path, labels: int, workers: int, in_flight: int) -> tuple[float, float, float]:
    """Return the seconds of the label strategy, of the bare exchange, and of the transactions."""
    points = torch.randn(labels, 2).tolist()
    with contextlib.ExitStack() as stack:
        if place == "folder":
            (root / "shared").mkdir()
            where = str(root / "shared")
        else:
            where = stack.enter_context(floors.server(floors.SERVERS[place], root / "server"))
        with floors.started(serve, where, workers):
            try:
                strategy = TimedWorkers(where, max_in_flight=in_flight)
                seconds = labeling(root, "run", strategy, labels, steps=2)
            finally:
                (root / "end").touch()
        if place == "folder":
            bare_seconds = floors.folder_seconds(root / "bare", points, workers, instant)
        else:
            bare_seconds = floors.stream_seconds(where, points, workers, instant)
    return seconds, bare_seconds, labeling(root, "plain", PlainMany(), labels)


def serve(where: str, number: int, ready: Any) -> None:
    """Work in an exchange until there is a file of the name "end" beside it."""
    torch.set_num_threads(1)
    path = Path(where.removeprefix("unix://"))
    root = path.parents[1] if where.startswith("unix://") else path.parent
    worker = Worker(open_exchange(where), FunctionLabelStrategy(instant), "function", home=root / f"files{number}")

    def watch() -> None:
        while not (root / "end").exists():
            time.sleep(0.1)
        worker.stop()

    threading.Thread(target=watch, daemon=True).start()
    ready.release()
    with contextlib.suppress(KeyboardInterrupt):
        worker.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="*", metavar="PLACE", help=f"of {', '.join((*POOLS, *EXCHANGES))}; all if none")
    for name, default in {"labels": 2000, "workers": 2, "in-flight": 10_000, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--root", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args()
    if unknown := set(options.places) - {*POOLS, *EXCHANGES}:
        parser.error(f"there is no place {sorted(unknown)[0]!r}; there are {', '.join((*POOLS, *EXCHANGES))}")
    places = options.places or (*POOLS, *EXCHANGES)
    for program in (floors.SERVERS[place] for place in places if place in floors.SERVERS):
        if shutil.which(program) is None:
            parser.error(f"{program} is missing (on Debian: apt install {program}); or name other places to measure")
    torch.set_num_threads(1)
    for place in places:
        measure = in_pool if place in POOLS else in_workers
        rounds = []
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory(dir=options.root) as folder:
                rounds.append(measure(place, Path(folder), options.labels, options.workers, options.in_flight))
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
