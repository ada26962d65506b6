"""Fifty labels by jobs, while driver, jobs and Slurm's controller are killed; ``make faults`` has a thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.slurm import why_not


@pytest.mark.parametrize(
    "scheduler", ["local", pytest.param("slurm", marks=pytest.mark.skipif(bool(why_not()), reason=why_not()))]
)
def test_no_attempt_runs_twice_and_no_label_is_lost(scheduler: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("jobs.py")), "--jobs", "50", "--kills", "4"]
    done = subprocess.run(
        [*command, "--scheduler", scheduler], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    data = json.loads(done.stdout.splitlines()[-1])
    assert (data["wrong"], data["kills"]) == (0, 4)
    assert data["attempts"] >= 50
