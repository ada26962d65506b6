"""What of a run on several ranks must be equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alcore.store.reading import Run


def ended(processes: Any) -> list[Any]:
    """Return what each rank printed at its end; they must agree."""
    assert processes.codes == [0] * len(processes.codes), "\n".join(processes.texts)
    lines = [[line for line in text.splitlines() if line.startswith("ended ")] for text in processes.texts]
    assert len({str(one) for one in lines}) == 1, lines
    return list(json.loads(lines[0][0].removeprefix("ended ")))


def essence(folder: Path) -> dict[str, Any]:
    """Return everything that must be equal, which is everything but times."""
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


def ends_of(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out checkpoints inside training: behind a failure the last one is replaced by one that says so."""
    return {**found, "checkpoints": {k: v for k, v in found["checkpoints"].items() if "-training-" not in k}}
