"""Benchmarks are not measured in tests, but those that need nothing else must run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.processes import run_forked
from helpers.source import ROOT

RUNS = {
    "store.py --steps 2 --repeats 1 --labels 3 --pool 1000": {"store/step", "store/label", "store/checkpoint"},
    "steps.py --steps 200 --repeats 1": {"steps/flat", "steps/resume"},
    "loop/moons.py --steps 2 --repeats 1": {"moons/floor", "moons/alcore", "moons/store"},
    "fields.py --pool 50 --side 5 --labels 3 --rows 3 --held 4": {"fields/labels", "fields/stored", "fields/measured"},
    "start.py start/torch start/run-1-step --repeats 1": {"start/torch", "start/run-1-step"},
    "dash.py --runs 3 --steps 1": {"dash/first", "dash/again", "dash/one-changed", "dash/one-run"},
    "loop/train.py --epochs 1 --repeats 1": {"train"},
    "label.py here threads processes folder --labels 5 --repeats 1": {
        "label/here",
        "label/threads",
        "label/processes",
        "label/folder",
    },
    "label.py redis --labels 5 --repeats 1": {"label/redis"},
    "label.py valkey --labels 5 --repeats 1": {"label/valkey"},
}
NEEDS = {"redis": "redis-server", "valkey": "valkey-server"}


@pytest.mark.parametrize("command", RUNS)
def test_benchmark_prints_its_figures(command: str, tmp_path: Path) -> None:
    script, *options = command.split()
    for program in (NEEDS[option] for option in options if option in NEEDS):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (on Debian: apt install {program})")
    done = run_forked(ROOT / "benchmarks" / script, *options, cwd=tmp_path, timeout=250)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row.get("name", row.get("benchmark")) for row in rows} >= RUNS[command]
