"""The ordering of the BatchBALD paper on repeated MNIST: BatchBALD above random above BALD.

Kirsch, van Amersfoort and Gal (2019), BatchBALD, NeurIPS, figure 4: where the pool holds each image several times,
BALD asks for the copies of one image in a batch and does worse than chance. Here: a part of the 10,000 digits, each
repeated with Gaussian noise of 0.1, a small CNN with dropout that is trained from its initial weights at each step, 20
samples of the posterior, batches of 10, from 20 labels (two a class) to 150. One JSON line a strategy and seed,
then one a strategy with means over the seeds.

Usage: python benchmarks/published/repeated_mnist.py --data FOLDER [--seeds 3] [--base 1500] [--repeats 4]
FOLDER holds mnist10k.npz with X, uint8 (10000, 784), and y; its default is the environment variable
ALCORE_PUBLISHED_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alcore_bayes import BALDQuery, BatchBALDQuery
from alcore_dummy import DummyLabelStrategy
from alcore_random import RandomQuery
from alcore_torchloop import DefaultTrainingLoop

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.strategies import BaseMetrology

BATCH, FIRST, LAST, SAMPLES, TEST = 10, 20, 150, 20, 2000


class Net(torch.nn.Sequential):
    """Two convolutions and two linear layers, with dropout before each but the first."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(1, 16, 5), torch.nn.Dropout2d(), torch.nn.MaxPool2d(2), torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 5), torch.nn.Dropout2d(), torch.nn.MaxPool2d(2), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(512, 128), torch.nn.ReLU(), torch.nn.Dropout(),
            torch.nn.Linear(128, 10),
        )  # fmt: skip


class TestAccuracy(BaseMetrology):
    """Accuracy on held-out images."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        super().__init__()
        self._inputs, self._targets = inputs, targets

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure with dropout switched off."""
        parts = [self.driver.infer(part).argmax(1) for part in self._inputs.split(500)]
        self.append_record(accuracy=float((torch.cat(parts) == self._targets).double().mean()))


def curve(strategy: str, images: torch.Tensor, digits: torch.Tensor, seed: int, base: int, repeats: int) -> list[float]:
    """Run one strategy; return the accuracies with 20, 30, ... labels."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=draw)
    test, kept = order[:TEST], order[TEST : TEST + base].repeat_interleave(repeats)
    pool_images = images[kept] + 0.1 * torch.randn(len(kept), 1, 28, 28, generator=draw)
    first = [int(i) for digit in range(10) for i in (digits[kept] == digit).nonzero()[:: 3 * repeats][: FIRST // 10, 0]]
    pool = TensorPool(pool_images, digits[kept], labeled=first)
    torch.manual_seed(seed)
    accuracy = TestAccuracy(images[test], digits[test])
    query = {
        "BatchBALD": lambda: BatchBALDQuery(BATCH, samples=SAMPLES),
        "Random": lambda: RandomQuery(BATCH),
        "BALD": lambda: BALDQuery(BATCH, samples=SAMPLES),
    }[strategy]()
    with tempfile.TemporaryDirectory() as root:
        Driver(
            c.DriverConfig(
                32, (LAST - FIRST) // BATCH + 1, root_log_dir=root, device="cpu", seed=seed, checkpoint_interval=0
            ),
            Net(),
            c.StrategiesConfig([query], queue.Queue, DummyLabelStrategy(), [accuracy]),
            c.TrainingConfig(
                pool, 80, None, c.OptimizerConfig(torch.optim.Adam, {"lr": 1e-3}), reset_learner=True,
                train_loop_fn=DefaultTrainingLoop(use_progress_bars=False),
            ),
        ).run()  # fmt: skip
    return [record["accuracy"] for record in accuracy.records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALCORE_PUBLISHED_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base", type=int, default=1500, help="images before they are repeated")
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of the data with --data, or set ALCORE_PUBLISHED_DATA")
    torch.set_num_threads(1)
    file = np.load(Path(options.data) / "mnist10k.npz", allow_pickle=False)
    images = (torch.from_numpy(file["X"]).float().reshape(-1, 1, 28, 28) / 255 - 0.1307) / 0.3081
    digits = torch.from_numpy(file["y"].astype(np.int64))
    curves: dict[str, list[list[float]]] = {"BatchBALD": [], "Random": [], "BALD": []}
    for seed in range(options.seeds):
        for strategy, found in curves.items():
            began = time.perf_counter()
            found.append(curve(strategy, images, digits, seed, options.base, options.repeats))
            line = {"strategy": strategy, "seed": seed, "accuracy": [round(accuracy, 4) for accuracy in found[-1]]}
            print(json.dumps(line | {"seconds": round(time.perf_counter() - began)}), flush=True)
    for strategy, found in curves.items():
        means = [round(statistics.fmean(column), 4) for column in zip(*found, strict=True)]
        labels = list(range(FIRST, LAST + 1, BATCH))
        summary = {"strategy": strategy, "seeds": len(found), "labels": labels, "mean accuracy": means}
        print(json.dumps(summary | {"mean of the curve": round(statistics.fmean(means), 4)}))


if __name__ == "__main__":
    sys.exit(main())
