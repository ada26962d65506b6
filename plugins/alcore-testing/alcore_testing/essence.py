"""What must be equal between two runs that decided the same: everything but times and ids."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from alcore.store import Run
from alcore_testing.plain import text_of


def essence_of(folder: Path) -> dict[str, Any]:
    """Return all that a run decided, as plain data: the same for equal seeds, and for a run that was resumed.

    Parameters
    ----------
    folder
        The run directory. Nobody has to have closed the run properly.

    Returns
    -------
    dict
        The rows of ``requests`` (without the handles of their jobs), ``labels`` (request ids, which depend on the id
        of the run, are left out),
        ``refused`` (without repeats of what was known), ``queries``, ``records`` and ``steps`` (without seconds); the
        ``reason`` for which the run ended; the digests of ``checkpoints`` and ``exports``, by file.
    """
    run = Run(folder)
    decisions: dict[str, Any] = dict(run.decisions())
    decisions["requests"] = [row[:-1] for row in decisions["requests"]]
    exports = (path for path in folder.glob("*.json") if path.name != "driver_log.json")  # that one holds times
    return decisions | {
        "reason": run.meta().get("reason"),
        "checkpoints": {
            checkpoint["file"]: _digest(folder / "ckpt" / checkpoint["file"]) for checkpoint in run.checkpoints()
        },
        "exports": {path.name: _digest(path) for path in exports},
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name what differs between two results of `essence_of`; files one by one, rows by their first difference."""
    lines = []
    for name in {**one, **other}:
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            lines += [f"{name}: {file}" for file in {**mine, **theirs} if mine.get(file) != theirs.get(file)]
        elif isinstance(mine, list) and isinstance(theirs, list) and mine != theirs:
            place = next((at for at, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(mine), len(theirs)) if place is None else place
            lines.append(f"{name}, row {at}: {mine[at : at + 1]}, not {theirs[at : at + 1]}")
        elif mine != theirs:
            lines.append(f"{name}: {mine!r}, not {theirs!r}")
    return lines


def checkpoint_differences(one: Path, other: Path) -> list[str]:
    """Name the tensors, and the parts of the header, in which two checkpoint files differ."""
    mine, theirs = _content(one), _content(other)
    return sorted(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))


def _content(path: Path) -> dict[str, str]:
    """Return tensors and the states of the parts as text, by name."""
    if not path.exists():
        return {}
    with safe_open(path, framework="pt") as file:
        texts = {name: text_of(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(next(iter(file.metadata().values())))["state"]
    for name, value in header.items():
        inside = value.items() if isinstance(value, dict) else [("", value)]
        texts |= {f"{name}.{key}".rstrip("."): json.dumps(part) for key, part in inside}
    return texts


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
