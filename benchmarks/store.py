"""Measure the run directory against the bare sequence of the same writes, fsyncs and transactions.

- ``store/step``: the two-moons experiment. After each step of alcore, the same rows and the same checkpoint bytes
  are written once more beside it, with sqlite3 and os alone; milliseconds a step are compared. What alcore spends is
  measured by wrapping the methods of its store (``clock.py``).
- ``store/checkpoint``: the bytes of a checkpoint where the pool has 10 million samples, over what model and optimizer
  need and a bitset of the pool would.
- ``store/label``: one label a transaction, over the bare transaction, and over one write and fsync; and in bulk.

Usage: python benchmarks/store.py [--steps 70] [--repeats 3] [--pool 10000000] [--root FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_moons import MLP, MoonsPool
from alcore_random import RandomQuery
from alcore_torchloop import DefaultTrainingLoop
from alcore_uq import ClassifierUQQuery
from clock import store_clock
from safetensors.torch import load_file

import alcore
from alcore import Driver, TensorPool
from alcore import config as c
from alcore.store import Run

SEED, PICKS = 0, 10


class Bare:
    """Writes what a run has committed once more, without anything around it."""

    def __init__(self, folder: Path, like: Path) -> None:
        self.folder = folder
        folder.mkdir()
        with contextlib.closing(sqlite3.connect(like)) as original:
            tables = [sql for (sql,) in original.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        self.connection = sqlite3.connect(folder / "run.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = DELETE")
        self.connection.execute("PRAGMA synchronous = EXTRA")
        for sql in tables:
            self.connection.execute(sql)

    def step(self, run: Run, step: int, exported: dict[str, bytes]) -> float:
        """Write one step; return the seconds."""
        rows = {
            table: [tuple(row) for row in run.read(f"SELECT * FROM {table} WHERE step = ?", step)]
            for table in ("requests", "queries", "records", "labels", "checkpoints", "steps")
        }
        rows["checkpoints"] = [row for row in rows["checkpoints"] if row[2] == "labeling"]
        content = [(row[0], (run.folder / "ckpt" / row[0]).read_bytes()) for row in rows["checkpoints"]]
        began = time.perf_counter()
        with self.transaction() as execute:
            insert(execute, "requests", [(*row[:14], 0, "open", None, None, row[18]) for row in rows["requests"]])
            insert(execute, "queries", rows["queries"])
            insert(execute, "records", rows["records"])
        if rows["labels"]:
            self.label(*rows["labels"])
        for name, data in content:
            aside = self.folder / f".{name}.part"
            with aside.open("wb", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())
            aside.rename(self.folder / name)
            descriptor = os.open(self.folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        with self.transaction() as execute:
            insert(execute, "checkpoints", rows["checkpoints"])
            insert(execute, "steps", rows["steps"])
        for name, data in exported.items():
            (self.folder / f".{name}").write_bytes(data)
            (self.folder / f".{name}").replace(self.folder / name)
        return time.perf_counter() - began

    def label(self, *rows: tuple[Any, ...]) -> None:
        """Write labels."""
        with self.transaction() as execute:
            execute("UPDATE requests SET state = 'labeled', closed = ? WHERE id = ?", [(r[1], r[0]) for r in rows])
            insert(execute, "labels", list(rows))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Callable[..., Any]]:
        """Give what executes a statement on many rows, inside one transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        yield self.connection.executemany
        self.connection.execute("COMMIT")


def insert(execute: Callable[..., Any], table: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows, if there are any."""
    if rows:
        execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


class Beside:
    """Repeats each step bare, and keeps both times."""

    def __init__(self, root: Path, clock: dict[str, float]) -> None:
        self.root, self.clock = root, clock
        self.bare: Bare | None = None
        self.alcore_ms: list[float] = []
        self.bare_ms: list[float] = []
        self.exported: dict[str, bytes] = {}
        self.pending: tuple[int, dict[str, bytes]] | None = None

    @alcore.runhook
    def alcore_step_end(self, driver: Driver, record: dict[str, Any]) -> None:
        """Repeat the step, every second time later, so that now one and now the other finds a disk at rest."""
        self.alcore_ms.append(1000 * self.clock["seconds"])
        self.clock["seconds"] = 0.0
        exported = {path.name: path.read_bytes() for path in driver.log_dir.glob("*.json")}
        self.pending = (record["step"], exported if exported != self.exported else {})
        self.exported = exported
        if record["step"] % 2:
            self.repeat(driver)

    @alcore.runhook
    def alcore_phase_start(self, driver: Driver, phase: str) -> None:
        """Repeat the last step, if that is left to do."""
        if phase == "query":
            self.repeat(driver)

    def repeat(self, driver: Driver) -> None:
        """Write the last step once more."""
        if self.bare is None:
            self.bare = Bare(self.root / f"bare-{driver.run_id}", driver.log_dir / "run.db")
        if self.pending is not None:
            self.bare_ms.append(1000 * self.bare.step(Run(driver.log_dir), *self.pending))
            self.pending = None


def steps(root: Path, count: int, name: str) -> tuple[float, float]:
    """Run the experiment; return the median milliseconds a step of alcore's store and of the bare sequence."""
    with store_clock(time.perf_counter) as clock:
        beside = Beside(root, clock)
        pool = MoonsPool(seed=SEED)
        queries = [ClassifierUQQuery(max_samples=PICKS)]
        build(root, name, count, pool, queries, metrology=[F1Metrology()], plugins=[beside]).run()
    return statistics.median(beside.alcore_ms), statistics.median(beside.bare_ms)


def build(root: Path, name: str, count: int, pool: Any, queries: list[Any], **parts: Any) -> Driver:
    torch.manual_seed(SEED)
    return Driver(
        config=c.DriverConfig(
            batch_size=16, max_active_learning_steps=count, fine_tuning_lr=0.005, root_log_dir=root, seed=SEED,
            run_id=name,
        ),
        learner=MLP(),
        strategies_config=c.StrategiesConfig(
            queries, queue.Queue, parts.get("label") or DummyLabelStrategy(), parts.get("metrology")
        ),
        training_config=c.TrainingConfig(
            train_datapool=pool,
            optimizer_config=c.OptimizerConfig(torch.optim.AdamW, {"lr": 0.01}),
            max_training_epochs=10,
            max_fine_tuning_epochs=5,
            train_loop_fn=DefaultTrainingLoop(use_progress_bars=False),
        ),
        plugins=parts.get("plugins", ()),
    )  # fmt: skip


def checkpoint_bytes(root: Path, size: int) -> dict[str, Any]:
    """Return the bytes of a checkpoint of a run on a large pool."""
    inputs = torch.cat([torch.randn(64, 2), torch.zeros(size - 64, 2)])
    pool = TensorPool(inputs, torch.arange(size, dtype=torch.uint8) % 2, labeled=range(64))
    driver = build(root, "large", 2, pool, [RandomQuery(max_samples=PICKS)])
    driver.run()
    last = Run(driver.log_dir).checkpoints()[-1]
    tensors = load_file(driver.log_dir / "ckpt" / last["file"])
    kept = [tensor for name, tensor in tensors.items() if name.startswith(("model.", "optimizer."))]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    return {
        "bytes": last["bytes"], "model_and_optimizer_bytes": needed, "ratio": last["bytes"] / (needed + size // 8),
        "pool": size, "database_bytes": (driver.log_dir / "run.db").stat().st_size,
    }  # fmt: skip


class Timed(DummyLabelStrategy):
    """Puts labels one by one in step 0, each once more bare beside it, and in bulk in step 1."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.ms: dict[str, list[float]] = {"alcore": [], "bare": [], "fsync": [], "bulk": []}

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Take out all requests first, so that putting alone is timed."""
        items = [queue_to_label.get() for _ in range(queue_to_label.qsize())]
        if self.ms["alcore"]:
            self.timed("bulk", lambda: serialize_queue.put_many(items), len(items))
            return
        run = Run(self.driver.log_dir)
        bare = Bare(self.root / f"bare-{self.driver.run_id}", run.folder / "run.db")
        requests = [tuple(row) for row in run.read("SELECT * FROM requests")]
        with bare.transaction() as execute:
            execute(f"INSERT INTO requests VALUES ({', '.join('?' * len(requests[0]))})", requests)
        with (self.root / f"plain-{self.driver.run_id}").open("wb", buffering=0) as file:
            for item in items:
                self.timed("alcore", lambda item=item: serialize_queue.put(item))
                (row,) = [tuple(row) for row in run.read("SELECT * FROM labels ORDER BY rowid DESC LIMIT 1")]
                self.timed("bare", lambda row=row: bare.label(row))
                self.timed("fsync", lambda: (file.write(b"x" * 100), os.fsync(file.fileno())))

    def timed(self, name: str, action: Callable[[], Any], count: int = 1) -> None:
        """Note the milliseconds of an action."""
        began = time.perf_counter()
        action()
        self.ms[name].append(1000 * (time.perf_counter() - began) / count)


def labels(root: Path, count: int, name: str) -> dict[str, float]:
    """Return the median milliseconds a label: alcore's, in bulk, bare, and what one write and fsync takes."""
    timed = Timed(root)
    inputs = torch.randn(2 * count + 64, 2)
    pool = TensorPool(inputs, (inputs[:, 0] > 0).long(), labeled=range(64))
    build(root, name, 2, pool, [RandomQuery(max_samples=count)], label=timed).run()
    return {name: statistics.median(values) for name, values in timed.ms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"steps": 70, "repeats": 3, "labels": 200, "pool": 10_000_000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--root", type=Path, help="on the disk that is to be measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.root) as folder:
        root = Path(folder)
        pairs = [steps(root, options.steps, f"steps-{i}") for i in range(options.repeats + 1)][1:]
        one_by_one = [labels(root, options.labels, f"labels-{i}") for i in range(options.repeats + 1)][1:]
        large = checkpoint_bytes(root, options.pool)
    median = statistics.median
    label = {name: median(times[name] for times in one_by_one) for name in one_by_one[0]}
    rows: list[dict[str, Any]] = [
        {"name": "store/step", "ms_a_step": median(a for a, _ in pairs), "bare_ms_a_step": median(b for _, b in pairs),
         "ratio": median(a / b for a, b in pairs), "limit": 1.5},
        {"name": "store/checkpoint", **large},
        {"name": "store/label", "ms_a_label": label["alcore"], "bare_ms_a_label": label["bare"],
         "ratio": median(times["alcore"] / times["bare"] for times in one_by_one), "fsync_ms": label["fsync"],
         "ratio_to_fsync": median(times["alcore"] / times["fsync"] for times in one_by_one)},
        {"name": "store/label-bulk", "ms_a_label": label["bulk"],
         "ratio": median(times["bulk"] / times["alcore"] for times in one_by_one)},
    ]  # fmt: skip
    for row in rows:
        figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        print(json.dumps({**figures, "repeats": options.repeats, "steps": options.steps}))


if __name__ == "__main__":
    main()
