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
    found: dict[str, Any] = dict(run.decisions())
    found["requests"] = [row[:-1] for row in found["requests"]]
    exports = (path for path in folder.glob("*.json") if path.name != "driver_log.json")  # that one holds times
    return found | {
        "reason": run.meta().get("reason"),
        "checkpoints": {one["file"]: _digest(folder / "ckpt" / one["file"]) for one in run.checkpoints()},
        "exports": {path.name: _digest(path) for path in exports},
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name what differs between two results of `essence_of`; files one by one, rows by their first difference."""
    found = []
    for name in {**one, **other}:
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += [f"{name}: {file}" for file in {**mine, **theirs} if mine.get(file) != theirs.get(file)]
        elif isinstance(mine, list) and isinstance(theirs, list) and mine != theirs:
            place = next((at for at, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(mine), len(theirs)) if place is None else place
            found.append(f"{name}, row {at}: {mine[at : at + 1]}, not {theirs[at : at + 1]}")
        elif mine != theirs:
            found.append(f"{name}: {mine!r}, not {theirs!r}")
    return found


def checkpoint_differences(one: Path, other: Path) -> list[str]:
    """Name the tensors, and the parts of the header, in which two checkpoint files differ."""
    mine, theirs = _content(one), _content(other)
    return sorted(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))


def _content(path: Path) -> dict[str, str]:
    """Return tensors and the states of the parts as text, by name."""
    if not path.exists():
        return {}
    with safe_open(path, framework="pt") as file:
        found = {name: text_of(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(next(iter(file.metadata().values())))["state"]
    for name, value in header.items():
        inside = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{name}.{key}".rstrip("."): json.dumps(part) for key, part in inside}
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
