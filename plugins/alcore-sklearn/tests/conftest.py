"""A small problem of three classes, as arrays and as a pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from alcore import DataInfo, TensorPool


def make_pool(classes: int = 3, n: int = 60, labeled: Any = range(5, 30), dtype: Any = np.float64) -> TensorPool:
    """Return overlapping clouds, one a class; sample i is of class i modulo the number of classes."""
    draw = np.random.default_rng(3)
    codes = np.arange(n) % classes
    inputs = np.abs(draw.normal(size=(n, 4)) + codes[:, None]).astype(dtype)
    info = DataInfo("classification", classes, 4, (4,))
    return TensorPool(torch.from_numpy(inputs), torch.from_numpy(codes), labeled, info)


def make_values(n: int = 60, labeled: Any = range(5, 30), columns: int | None = None) -> TensorPool:
    """Return a regression; with `columns`, targets have a second axis."""
    draw = np.random.default_rng(4)
    inputs = np.abs(draw.normal(size=(n, 4)))
    targets = np.abs(inputs @ [1.0, 2.0, -1.0, 0.0] + 0.1 * draw.normal(size=n)) + 0.1
    if columns is not None:
        targets = np.stack([targets * (1 + column) for column in range(columns)], axis=1)
    info = DataInfo("regression", 0, 4, (4,))
    return TensorPool(torch.from_numpy(inputs), torch.from_numpy(targets), labeled, info)


@pytest.fixture(scope="session")
def pool_of() -> Callable[..., TensorPool]:
    return make_pool


@pytest.fixture(scope="session")
def values_of() -> Callable[..., TensorPool]:
    return make_values
