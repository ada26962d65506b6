"""What a crash of the machine may reorder is ordered by flushes; and each flush is needed for the test to pass."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import alcore.store

STORE = Path(str(alcore.store.__file__)).parent
SYNCHRONOUS = ["synchronous=FULL", "synchronous=NORMAL", "synchronous=OFF"]


def flushes() -> list[str]:
    """Return the place of each call of ``os.fsync`` and ``fsync_path`` in what a run writes: file and lines.

    A fork is not traced here: `test_fork_that_fails_at_any_fsync_leaves_nothing_or_a_whole_run` covers its flushes.
    What is written for other programs (``folders.py``) is no part of a run.
    """
    places = []
    others = {STORE / name for name in ("fork.py", "folders.py")}
    for path in sorted(set(STORE.glob("*.py")) - others):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.fsync", "os.fdatasync", "fsync_path"):
                places.append(f"{path.name}:{node.lineno}-{node.end_lineno}")
    return places


@pytest.fixture(scope="session")
def order() -> ModuleType:
    spec = importlib.util.spec_from_file_location("alcore_faults_order", Path(__file__).with_name("order.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("strace")
def test_everything_is_flushed_in_order_and_no_flush_is_idle(servers: Any, order: ModuleType) -> None:
    assert order.violations(servers.trace(size=5000)) == []
    assert len(flushes()) >= 7
    kept = [name for name in [*flushes(), *SYNCHRONOUS] if not order.violations(servers.trace(size=5000, mutant=name))]
    assert kept == [], "these flushes can be left out unnoticed"


@pytest.mark.usefixtures("strace")
def test_a_run_that_is_taken_up_again_flushes_in_order(servers: Any, harness: Any, order: ModuleType) -> None:
    calls = harness.points(servers.trace(), ["pwrite64"])
    cut = harness.at(calls[len(calls) // 2], "kill")
    assert order.violations(servers.trace(cut, size=5000), resumed=True) == []
