"""Loads the harness, which is no package: each of its files is also run as a script."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def harness() -> Any:
    """The module ``harness.py``."""
    name = "alcore_faults_harness"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("harness.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def servers(harness: Any) -> Iterator[Any]:
    """One fork server, which has run the experiment once."""
    if sys.platform != "linux":
        pytest.skip("lives are begun by fork and ended through Linux's own calls")
    with harness.Servers(1) as started:
        yield started


@pytest.fixture
def strace(harness: Any) -> None:
    """Skip where system calls can't be traced."""
    if (reason := harness.why_no_strace()) is not None:
        pytest.skip(f"{reason}: faults can't be aimed at system calls")
