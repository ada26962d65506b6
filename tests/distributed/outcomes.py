"""How several ranks ended, and what of their run must be equal to another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from alcore.store.reading import Run


def ended(processes: Any) -> list[Any]:
    """Return what each rank printed at its end: reason, weights, number of labeled samples. The ranks must agree."""
    assert processes.codes == [0] * len(processes.codes), "\n".join(processes.texts)
    lines = [[line for line in text.splitlines() if line.startswith("ended ")] for text in processes.texts]
    assert len({str(one) for one in lines}) == 1, lines
    return list(json.loads(lines[0][0].removeprefix("ended ")))


def essence(folder: Path) -> dict[str, Any]:
    """Return everything that must be equal between two runs of one id, which is everything but times."""
    run = Run(folder)
    return {
        "requests": run.requests(),
        "labels": [tuple(row) for row in run.read("SELECT request, step, source, attempt, kind, value FROM labels")],
        "records": repr(run.records()),
        "steps": [{k: v for k, v in one.items() if k != "seconds"} for one in run.steps()],
        "refused": run.refused(),
        "checkpoints": {one["file"]: one["sha256"] for one in run.checkpoints()},
        "reason": run.meta()["reason"],
    }


def without_training_checkpoints(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out checkpoints inside training: after a failure, the last one is replaced by one that says so."""
    return {**found, "checkpoints": {k: v for k, v in found["checkpoints"].items() if "-training-" not in k}}


VALUES: list[Any] = [
    None, 3, "ü", [1, (2.5, float("inf"))], {1: {"a": b"xyz"}}, torch.arange(6).reshape(2, 3), torch.tensor(True),
    torch.empty(0, 4), torch.ones(2, 2, dtype=torch.bfloat16).t(), torch.tensor([1 + 2j]).conj(), torch.tensor(2.5),
    {"w": torch.ones(3), "again": [torch.zeros(1, dtype=torch.int8)]},
]  # fmt: skip
"""Values that ranks can exchange."""


def same(one: Any, other: Any) -> bool:
    """Compare values by type, dtype and content."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.resolve_conj(), other.resolve_conj())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
