"""The toys as pytest fixtures; in a conftest.py: ``from alcore_testing.fixtures import *``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcore import Driver
from alcore_testing import drivers, toys

__all__ = ["alcore_driver", "alcore_learner", "alcore_pool"]


@pytest.fixture
def alcore_pool() -> Callable[..., Any]:
    """`toy_pool`: call it with the settings of the pool."""
    return toys.toy_pool


@pytest.fixture
def alcore_learner() -> Callable[..., Any]:
    """`toy_learner`: call it with the case."""
    return toys.toy_learner


@pytest.fixture
def alcore_driver(tmp_path: Path) -> Callable[..., Driver]:
    """`build_driver` with the test's own folder: call it with query strategies and settings."""
    return functools.partial(drivers.build_driver, tmp_path)
