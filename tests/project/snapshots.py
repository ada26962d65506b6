"""Print what other programs read of alcore: ``python tests/project/snapshots.py [--root DIR]``.

The JSON it prints holds, by the words of each command, its output: the help texts, what ``--json`` gives for plugins,
parameters and a run of fixed id and seed, and the files of that run. Times, versions of what alcore runs on, and paths
are replaced by words in angle brackets, so that two trees can be compared by ``diff``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from fingerprint import MOONS, command

COMMANDS = ("run", "resume", "fork", "runs", "show", "export", "plugins", "describe")
DESCRIBED = (
    ("query", "uq"), ("query", "badge"), ("loop", "default"), ("label", "dummy"), ("metrology", "f1"),
    ("data", "csv"), ("learner", "mlp"), ("queue", "fifo"), ("stop", "metric"),
)  # fmt: skip
MASKED = {"started", "ended", "seconds", "python", "platform", "torch", "numpy"}
"""Keys whose values differ from run to run or from machine to machine."""
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(Z|\+00:00)?")


def masked(value: Any, root: Path) -> Any:
    """Return a value with times, versions and paths replaced."""
    if isinstance(value, dict):
        return {
            key: _placeholder(key, one) if key in MASKED and one is not None else masked(one, root)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [masked(member, root) for member in value]
    if not isinstance(value, str):
        return value
    value = value.replace(str(root), "<root>").replace(sys.prefix, "<prefix>")
    return TIME.sub("<time>", value)


def _placeholder(key: str, value: Any) -> Any:
    return dict.fromkeys(value, f"<{key}>") if isinstance(value, dict) else f"<{key}>"


def files(run: Path) -> dict[str, Any]:
    """Return what is in a run directory for others to read, and the tables of its database."""
    found: dict[str, Any] = {
        "names": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
        "experiment.toml": (run / "experiment.toml").read_text().splitlines(),
        "console.log": (run / "console.log").read_text().splitlines(),
    }
    found |= {path.name: json.loads(path.read_text()) for path in sorted(run.glob("*.json"))}
    with contextlib.closing(sqlite3.connect(f"{run.resolve().as_uri()}/run.db?mode=ro", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = [text for (text,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
        keys = [key for (key,) in connection.execute("SELECT key FROM run ORDER BY key")]
    return found | {"run.db": {"user_version": version, "tables": tables, "run": keys}}


def exported(folder: Path) -> dict[str, Any]:
    """Return the table that was exported, and what its arrays and tensors look like."""
    import numpy as np
    import safetensors

    arrays = np.load(folder / "labeled.npz")
    tensors = safetensors.deserialize((folder / "model.safetensors").read_bytes())
    return {
        "names": sorted(path.name for path in folder.iterdir()),
        "info.json": json.loads((folder / "info.json").read_text()),
        "labels.csv": (folder / "labels.csv").read_text().splitlines(),
        "labeled.npz": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
        "model.safetensors": {name: [one["dtype"], list(one["shape"])] for name, one in sorted(tensors)},
    }


def snapshots(root: Path) -> dict[str, Any]:
    """Return all outputs by the words of their commands."""
    found: dict[str, Any] = {}

    def text(*words: str) -> None:
        found[" ".join(words)] = command(root, *words).splitlines()

    def data(*words: str) -> None:
        found[" ".join(words)] = json.loads(command(root, *words, "--json"))

    text("--version")
    text("--help")
    for name in COMMANDS:
        text(name, "--help")
    data("plugins")
    for words in DESCRIBED:
        data("describe", *words)
    runs = ("--root", str(root / "runs"))
    data("run", *MOONS, *runs)
    data("runs", *runs)
    data("show", "moons", *runs)
    data("show", "moons", "--step", "3", *runs)
    found["files of the run"] = files(root / "runs" / "moons")
    text("export", "moons", "--output", str(root / "export"), *runs)
    found["files of the export"] = exported(root / "export")
    data("fork", "moons", "--step", "5", "--run-id", "forked", *runs)
    data("resume", "forked", "--steps", "8", *runs)
    return {masked(words, root): masked(content, root) for words, content in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="an empty folder to work in; a temporary one by default")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = options.root
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alcore-snapshots-")))
        root.mkdir(parents=True, exist_ok=True)
        print(json.dumps(snapshots(root.resolve()), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
