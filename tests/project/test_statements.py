"""The script that reports how much of core a plain run needs works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_statements_are_reported_by_package() -> None:
    script = Path(__file__).with_name("statements.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=300)
    packages = {line.pop("package"): line for line in map(json.loads, done.stdout.splitlines())}
    whole = packages.pop("alcore")
    assert whole["statements"] == sum(figures["statements"] for figures in packages.values())
    assert 0 < whole["share"] < packages["driver"]["share"] < 1
    assert packages["cli"]["ran"] == 0  # no command was called
