"""Measure what a second rank brings, in scoring and in training; and what one of W ranks does and holds.

``--ranks 1 2`` starts so many processes with one thread each. A scoring figure is samples a second of a query phase
over a pool on disk; a training figure is samples a second of a training phase. ``--play 1 8 64`` plays W ranks one
after the other in one process: each scores its share of the pool, and what they found is merged. The floor of both is
one rank.

Usage: python benchmarks/distributed.py [--rows 2000000] [--ranks 1 2] [--play 1 8 64] [--play-rows 10000000]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import TCPStore

sys.path.append(str(Path(__file__).parent / "query"))
from query import peak, write_rows

WIDTH, PICKS = 64, 100


def learner() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))


def driver_on(path: str, root: str, *, train: bool, plugins: list[Any]) -> Any:
    from alcore_torchloop import DefaultTrainingLoop
    from alcore_uq import ClassifierUQQuery

    from alcore import DistributedManager, Driver, TensorPool
    from alcore import config as c

    rows = np.load(path, mmap_mode="r")
    labeled = range(20_000 if train else 0)
    targets = np.arange(len(rows)) % 10
    return Driver(
        c.DriverConfig(
            64, max_active_learning_steps=1, skip_training=not train, root_log_dir=root, seed=0, run_id="bench",
            dist_manager=DistributedManager(), checkpoint_interval=0,
        ),
        learner(),
        c.StrategiesConfig([] if train else [ClassifierUQQuery(PICKS, "entropy")], queue.Queue),
        c.TrainingConfig(
            TensorPool(rows, targets, labeled=labeled), 2, train_loop_fn=DefaultTrainingLoop(use_progress_bars=False)
        ),
        plugins=plugins,
    )  # fmt: skip


def work(options: argparse.Namespace) -> None:
    """Be one rank: score, then train; rank 0 prints the seconds of the phases, and what was chosen."""
    import alcore

    class Clock:
        seconds: float = 0.0

        @alcore.runhook
        def alcore_phase_start(self, phase: Any) -> None:
            if phase in ("query", "training"):
                self.seconds = time.perf_counter()

        @alcore.runhook
        def alcore_phase_end(self, phase: Any) -> None:
            if phase in ("query", "training"):
                found[phase] = time.perf_counter() - self.seconds

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, train in (("scoring", False), ("training", True)):
        with tempfile.TemporaryDirectory() as root:
            driver = driver_on(options.path, root, train=train, plugins=[Clock()])
            driver.run()
            if not train:
                found["chosen"] = [request.sample for request in driver.query_queue.asked]
            found[name] = found.pop("training" if train else "query", 0.0)  # observers are told on rank 0 alone
    if driver.ranks.main:
        print(json.dumps(found), flush=True)


def start(ranks: int, path: str) -> dict[str, Any]:
    """Start so many processes; return what rank 0 printed."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # held here, as torchrun does
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--path", path], stdout=subprocess.PIPE, text=True,
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            },
        )
        for rank in range(ranks)
    ]  # fmt: skip
    texts = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError("a rank failed")
    return dict(json.loads(texts[0]))


def measure(options: argparse.Namespace, path: str) -> None:
    best: dict[int, dict[str, Any]] = {}
    for _ in range(options.repeats):  # in turns, so that all meet the same neighbors
        for ranks in options.ranks:
            figures = start(ranks, path)
            kept = best.setdefault(ranks, figures)
            if kept["chosen"] != figures["chosen"] or figures["chosen"] != best[options.ranks[0]]["chosen"]:
                raise RuntimeError("other samples were chosen")
            for name in ("scoring", "training"):
                kept[name] = min(kept[name], figures[name])
    samples = {"scoring": options.rows, "training": 2 * 20_000}
    for name, count in samples.items():
        for ranks in options.ranks:
            row = {"figure": name, "ranks": ranks, "samples_per_second": round(count / best[ranks][name])}
            print(json.dumps(row | {"ratio": round(best[options.ranks[0]][name] / best[ranks][name], 2)}), flush=True)


def play(options: argparse.Namespace, path: str) -> None:
    """Play each of W ranks by itself, and merge what they found."""
    from alcore.inference import merge, top_k

    torch.set_num_threads(1)
    whole = None
    for ranks in options.play:
        parts: list[Any] = []
        seconds, memory = [], 0.0
        with tempfile.TemporaryDirectory() as root:
            driver = driver_on(path, root, train=False, plugins=[])
            score = driver.query_strategies[0].score
            for rank in range(ranks):
                one = functools.partial(top_k, driver, score, PICKS, shard=(rank, ranks))
                if not rank:  # before anything is freed that the next would find
                    memory = peak(one)
                began = time.process_time()
                parts.append(one())
                seconds.append(time.process_time() - began)
            merged = merge(parts, PICKS)
        whole = merged if whole is None else whole
        row = {
            "figure": "played", "ranks": ranks, "samples": options.play_rows,
            "same_choice": bool(torch.equal(merged.ids, whole.ids) and torch.equal(merged.scores, whole.scores)),
            "seconds_of_slowest_rank": round(max(seconds), 3), "mb_of_a_rank": round(memory, 1),
        }  # fmt: skip
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2 * 10**6)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--play", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--play-rows", type=int, default=10**7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count, figure in ((options.rows, measure), (options.play_rows, play)):
            path = str(Path(folder) / f"{count}.npy")
            write_rows(path, count)
            figure(options, path)


if __name__ == "__main__":
    main()
