"""Running the examples, some of which have data of their own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.processes import run_forked

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(path: Path) -> ModuleType:
    """Import a script of an example."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepared(file: Path) -> Path:
    """Return a file that an example's prepare.py fetches; skip the test where nobody called it."""
    if not file.is_file():
        prepare = (file.parents[1] / "prepare.py").relative_to(EXAMPLES.parent)
        pytest.skip(f"no {file.name}: `python {prepare}` fetches it with pip")
    return file


def run_example(folder: Path, *words: str, root: Path) -> list[dict[str, Any]]:
    """Call `alcore run` in the folder of an example; return the records of its metrology."""
    command = ["-m", "alcore", "run", *words, "--root", str(root), "--run-id", "example"]
    done = run_forked(*command, cwd=folder, timeout=250)
    assert done.returncode == 0, done.stderr
    (file,) = (root / "example").glob("*_metrology.json")
    records: list[dict[str, Any]] = json.loads(file.read_text())
    return records
