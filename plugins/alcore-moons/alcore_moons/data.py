"""Two interleaving half circles in two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.pools import Data, DataInfo, TensorPool


def two_moons(
    upper: int, lower: int, noise: float, seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the points and classes of ``sklearn.datasets.make_moons``, to the bit, without importing scikit-learn.

    Parameters
    ----------
    upper, lower
        Number of points on the upper half circle, class 0, and on the lower one, class 1.
    noise
        Standard deviation of the Gaussian noise on each coordinate.
    seed
        From 0 to 2**32 - 1; the stream of `numpy.random.RandomState` is frozen.

    Returns
    -------
    tuple of numpy.ndarray
        Points, float64 (N, 2), and classes, int64 (N,), in random order.
    """
    generator = np.random.RandomState(seed)
    over, under = np.linspace(0, np.pi, upper), np.linspace(0, np.pi, lower)
    across = np.concatenate([np.cos(over), 1 - np.cos(under)])
    up = np.concatenate([np.sin(over), 1 - np.sin(under) - 0.5])
    order = np.arange(upper + lower)
    generator.shuffle(order)
    points = np.stack([across, up], axis=1)[order]
    return points + generator.normal(scale=noise, size=points.shape), (order >= upper).astype(np.int64)


class MoonsPool(TensorPool):
    """Two moons; the learner is measured on all points, labeled or not.

    Parameters
    ----------
    samples
        Number of points.
    majority
        Share of class 0.
    noise
        Standard deviation of the Gaussian noise on each coordinate; the moons have radius 1.
    initial
        Share of the points that is labeled at the start.
    seed
        Seed of the points, and of the choice of the labeled ones.
    """

    def __init__(
        self,
        samples: int = 1000,
        majority: float = 0.7,
        noise: float = 0.25,
        initial: float = 0.05,
        seed: int = 0,
    ) -> None:
        if not (0 <= majority <= 1 and 0 <= initial <= 1 and 0 <= noise < float("inf")):
            raise UsageError(
                f"moons: majority is {majority}, initial {initial} and noise {noise}; the first two are shares from "
                "0 to 1, and noise is a standard deviation of at least 0."
            )
        first = round(samples * majority)
        count = round(samples * initial)
        if samples < 2 or not 0 < first < samples:
            raise UsageError(f"moons: {samples} samples with a majority of {majority} leave a class without points.")
        points, classes = two_moons(first, samples - first, noise, seed % 2**32)
        order = np.random.default_rng(seed % 2**64).permutation(samples)
        self._everything = torch.tensor(points, dtype=torch.float32), torch.tensor(classes, dtype=torch.int64)
        super().__init__(
            *self._everything,
            labeled=order[:count],
            info=DataInfo("classification", classes=2, features=2, shape=(2,), names=("0", "1")),
        )

    def evaluation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all inputs, float32 (N, 2), and their classes, int64 (N,)."""
        return self._everything


def moons(
    samples: int = 1000,
    majority: float = 0.7,
    noise: float = 0.25,
    initial: float = 0.05,
    seed: int | None = None,
) -> Data:
    """Return the two-moons problem, with the settings that suit it.

    Parameters
    ----------
    samples
        Number of points.
    majority
        Share of class 0.
    noise
        Standard deviation of the Gaussian noise on each coordinate; the moons have radius 1.
    initial
        Share of the points that is labeled at the start.
    seed
        Seed of the points, and of the choice of the labeled ones; the seed of the run if it is not given.
    """
    pool = MoonsPool(samples, majority, noise, initial, seed or 0)
    assert pool.info is not None  # it is known from the targets
    return Data(
        train=pool,
        info=pool.info,
        defaults={
            "driver": {"batch_size": 16, "max_active_learning_steps": 70, "fine_tuning_lr": 0.005},
            "training": {
                "max_training_epochs": 10,
                "max_fine_tuning_epochs": 5,
                "optimizer": {"cls": "SGD", "lr": 0.01},
            },
        },
    )
