"""Benchmarks are not run by tests, but what they take hold of must be there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

STORE = Path(__file__).parents[2] / "benchmarks" / "store.py"


def test_what_the_store_benchmark_times_is_there() -> None:
    spec = importlib.util.spec_from_file_location("benchmarks_store", STORE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [f"{owner.__name__}.{name}" for owner, name in module.ENTRIES if not hasattr(owner, name)]
    assert missing == []
    assert len(module.ENTRIES) > 5
