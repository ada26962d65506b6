"""`alcore dash` on many runs: seconds until the list is there for the first time, again, and after a change of one run.

Each figure is one JSON line, in seconds of wall time and of CPU. The page is made in this process, without a browser.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alcore_web import Runs, create_app
from starlette.testclient import TestClient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        make(root, options.runs, options.steps)
        client = TestClient(create_app(Runs(root)))
        client.get("/static/style.css")  # starts the client
        report("first", options.runs, lambda: page(client, options.runs))
        report("again", options.runs, lambda: page(client, options.runs))
        os.utime(root / "run-0" / "run.db", (0, 0))
        report("one-changed", options.runs, lambda: page(client, options.runs))
        report("one-run", options.runs, lambda: client.get("/run/run-0").raise_for_status())


def make(root: Path, runs: int, steps: int) -> None:
    """Make one run, and copies of it."""
    words = ["run", "--query", "uq", "--metrology", "f1", "--steps", str(steps), "--run-id", "run-0", "--quiet"]
    command = [sys.executable, "-m", "alcore", *words, "--root", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for number in range(1, runs):
        shutil.copytree(root / "run-0", root / f"run-{number}")
    for database in root.glob("*/run.db"):  # as if they had ended a while ago
        os.utime(database, (time.time() - 3600,) * 2)


def page(client: TestClient, runs: int) -> None:
    """Ask for the list, which must have all runs."""
    assert client.get("/").text.count('type="checkbox"') == runs


def report(name: str, runs: int, work: Callable[[], Any]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({"name": f"dash/{name}", "runs": runs, **{key: round(one, 4) for key, one in seconds.items()}}))


if __name__ == "__main__":
    main()
