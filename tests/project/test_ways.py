"""The ways through core get no longer by more than a tenth unless a commit says so."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

WAYS = Path(__file__).with_name("ways.py")
PLUGINS = {path.name for path in (Path(__file__).parents[2] / "plugins").iterdir()}
ROOM = 1.1
MEANT = json.loads(WAYS.with_suffix(".json").read_text(encoding="utf-8"))


def test_no_way_is_longer_than_it_is_meant_to_be() -> None:
    others = {
        entry_point.dist.name
        for entry_point in importlib.metadata.entry_points(group="alcore")
        if entry_point.dist is not None
    } - PLUGINS
    if others:
        pytest.skip(f"each plugin that is looked at counts, and {', '.join(sorted(others))} is installed too")
    done = subprocess.run([sys.executable, str(WAYS)], capture_output=True, text=True, check=True, timeout=120)
    print(done.stdout)  # shown by pytest -rP, and where the test fails
    now = {line.pop("way"): line for line in map(json.loads, done.stdout.splitlines())}
    assert now.keys() == MEANT.keys()
    longer = [
        f"{way}: {name} {now[way][name]} in place of {meant}"
        for way, figures in MEANT.items()
        for name, meant in figures.items()
        if now[way][name] > ROOM * meant
    ]
    assert not longer, "; ".join(longer)
