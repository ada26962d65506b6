"""How several ranks ended, and values that they can exchange."""

from __future__ import annotations

import json
from typing import Any

import torch


def ended(processes: Any) -> list[Any]:
    """Return what each rank printed at its end: reason, weights, number of labeled samples. The ranks must agree."""
    assert processes.codes == [0] * len(processes.codes), "\n".join(processes.texts)
    lines = [[line for line in text.splitlines() if line.startswith("ended ")] for text in processes.texts]
    assert len({str(line) for line in lines}) == 1, lines
    return list(json.loads(lines[0][0].removeprefix("ended ")))


def without_training_checkpoints(found: dict[str, Any]) -> dict[str, Any]:
    """Return what `essence_of` found without checkpoints inside training.

    After a failure, the last of them is replaced by one that says so.
    """
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
