"""Whether a run is sound after a fault, what must be equal to the uninterrupted run, and how a life should end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from alcore_testing import essence_of
from harness import RUN_ID

from alcore.store import Run, checkpoints

CLEAR = re.compile(
    r"root/(\.alcore-building\.)?faulty.* can't be written: "
    r".*(No space left|disk is full|Input/output error|disk I/O error|unable to open"
    r"|readonly database).*make room|"
    r"\[Errno (5|28)\] .*(root/(\.alcore-building\.)?faulty|/log'$)|(checkpoint|label file) .*can't be read",
    re.DOTALL,
)


def sound(place: Path) -> tuple[list[str], set[str]]:
    """Return what is wrong with a run as a fault left it, and the answers it has; looks at a copy."""
    folder = place / "root" / RUN_ID
    if not folder.exists():
        return [], set()
    wrong: list[str] = []
    copy = place / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    with contextlib.closing(sqlite3.connect(copy / "run.db")) as connection:
        if (verdict := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            wrong.append(f"integrity_check: {verdict}")
        for file, sha256, size in connection.execute("SELECT file, sha256, bytes FROM checkpoints").fetchall():
            path = copy / "ckpt" / file
            try:
                checkpoints.load(path, sha256)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                wrong.append(f"{file}: {error}")
            else:
                if path.stat().st_size != size:
                    wrong.append(f"{file}: {path.stat().st_size} bytes, {size} on record")
        if not connection.execute("SELECT 1 FROM checkpoints WHERE phase = 'start'").fetchall():
            wrong.append("no first checkpoint")
        answered = {f"{a} {b}" for a, b in connection.execute("SELECT request, attempt FROM labels")}
        for request, attempt in connection.execute("SELECT id, attempt FROM requests"):
            answered |= {f"{request} {earlier}" for earlier in range(attempt)}
    if not (copy / "experiment.toml").read_text().endswith("\n"):
        wrong.append("experiment.toml is not whole")
    shutil.rmtree(copy)
    return wrong, answered


def essence(place: Path) -> dict[str, Any]:
    """Return everything that must be equal: what `essence_of` finds, and, since the id is the same, all else but times.

    It is plain data that JSON gives back unchanged, so that processes can tell it to each other.
    """
    folder = place / "root" / RUN_ID
    run = Run(folder)
    log = json.loads((folder / "driver_log.json").read_text())
    content = essence_of(folder) | {
        "meta": {
            key: repr(value) for key, value in run.meta().items() if key not in ("started", "ended", "environment")
        },
        "ids": [request["id"] for request in run.requests()],
        "arrivals": [list(row) for row in run.read("SELECT request, attempt FROM labels ORDER BY rowid")],
        "refused": run.refused(),  # repeats too, which one life doesn't have
        "log": [{key: value for key, value in step.items() if key != "seconds"} for step in log["steps"]],
        "experiment.toml": (folder / "experiment.toml").read_text().replace(str(place), ""),
        "inbox": (folder / "inbox").is_dir(),
        "files": sorted(  # nothing is left of what was cut off but hidden folders, which `alcore runs --clean` removes
            str(path.relative_to(place))
            for path in (place / "root").rglob("*")
            if not path.relative_to(place / "root").parts[0].startswith(".alcore-building.")
        ),
    }
    return dict(json.loads(json.dumps(content)))


def judge(told: dict[str, Any], fault: dict[str, Any], *, last: bool) -> list[str]:
    """Say what is wrong with the way a life ended."""
    how, action = told["how"], fault.get("action")
    if last or "trace" in fault:
        return [] if how == "done" else [f"can't be taken up again: {told}"]
    if "after" in fault or action == "kill":
        return [] if how == "killed" or (how == "done" and "after" in fault) else [f"was not killed: {told}"]
    if how == "done":
        return []
    if how != "error" or told["type"] in ("AssertionError", "KeyError", "AttributeError", "TypeError"):
        return [f"ended without a message: {told}"]
    if not CLEAR.search(told["message"]):
        return [f"its message is not clear: {told['type']}: {told['message']}"]
    return []
