"""What the replays of published results share: the data folder, a driver that scores an SVM or the like, processes."""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.strategies import BaseQuery

DATA_VARIABLE = "ALCORE_PUBLISHED_DATA"


class NextQuery(BaseQuery):
    """Ask for the samples with the lowest ids; on a shuffled pool that is uniform sampling."""

    def __init__(self, max_samples: int = 1) -> None:
        self.set_max_samples(max_samples)

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for the first candidates."""
        ids = next(self.driver.candidates(max(self.wanted, 1)), None)
        if ids is not None:
            query_queue.put_many(ids[: self.wanted].tolist())


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all replays have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"folder of the data and of the published figures (see README.md); ${DATA_VARIABLE} where it isn't given",
    )
    parser.add_argument("--seeds", type=seed_range, default=range(10), help="FIRST-LAST or a number of seeds from 0")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--root", type=Path, help="where run directories are made, and removed; a temporary folder")
    return parser


def seed_range(text: str) -> range:
    """Return the seeds of ``3-7``, or of ``5`` the first five."""
    first, dash, last = text.partition("-")
    return range(int(first), int(last) + 1) if dash else range(int(first))


def folder_of(options: argparse.Namespace, *files: str) -> Path:
    """Return the data folder, or end the script if one of the files is not there."""
    if options.data is None:
        sys.exit(f"Where is the data? Give --data FOLDER, or set {DATA_VARIABLE}; README.md tells what must be in it.")
    folder = Path(options.data)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        sys.exit(f"{folder} has no {' and no '.join(missing)}; README.md tells where to get it.")
    return folder


def curve(
    train: TensorPool,
    test: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    learner: Any,
    query: Any,
    *,
    start: Any = None,
    seed: int,
    steps: int | None,
    root: Path | None,
) -> list[float]:
    """Run the Driver and return the accuracy on the test part in each step.

    Parameters
    ----------
    train
        The pool to choose from, with what is labeled at the start.
    test
        Inputs and class codes to score on.
    learner, query, start
        What is scored, what chooses, and what makes the first selection where nothing is labeled.
    seed, steps, root
        Of the run; steps is None for a run until the pool is empty.
    """
    torch.set_num_threads(1)
    held_out = TensorPool(*map(torch.from_numpy, test), labeled=range(len(test[0])), info=train.info)
    root = Path(tempfile.mkdtemp(prefix="alcore-replay-", dir=root))
    metrology = F1Metrology()
    try:
        Driver(
            c.DriverConfig(
                batch_size=4096,
                max_active_learning_steps=steps,
                checkpoint_interval=0,
                root_log_dir=root,
                device="cpu",
                dtype=torch.float64,
                seed=seed,
            ),
            learner,
            c.StrategiesConfig([query], queue.Queue, DummyLabelStrategy(), [metrology], start_strategy=start),
            c.TrainingConfig(train, 1, val_datapool=held_out),
        ).run()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return [record["accuracy"] for record in metrology.records]


def spread(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Yield ``work(*task)`` for each task, in their order, from so many processes."""
    if jobs <= 1:
        yield from (work(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(work, *_columns(tasks))


def _columns(tasks: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*tasks, strict=True))
