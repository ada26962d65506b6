"""The examples run as the README says, in a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_moons(tmp_path: Path) -> None:
    output = run("moons.py", "--steps", "12", folder=tmp_path)
    (folder,) = (tmp_path / "active_learning_logs").glob("[!.]*")
    records = json.loads((folder / "f1_metrology.json").read_text())
    assert [record["train_samples"] for record in records] == [50 + 10 * step for step in range(12)]
    assert f"F1 {records[-1]['f1']:.3f}" in output
    assert len(list((folder / "ckpt").iterdir())) == 13
    assert (folder / "driver_log.json").is_file()
    assert (folder / "console.log").is_file()


def test_moons_with_a_custom_loop(tmp_path: Path) -> None:
    default = run("moons.py", "--steps", "3", folder=tmp_path)
    custom = run("moons.py", "--steps", "3", "--custom-loop", folder=tmp_path)
    assert default.splitlines()[:2] == custom.splitlines()[:2]


@pytest.mark.timeout(280)
def test_baselines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = run("baselines.py", "--seeds", "3", "--steps", "25", "--output", "out", folder=tmp_path)
    result = json.loads((tmp_path / "out" / "baselines.json").read_text())
    assert result["seeds"] == 3
    assert [row["labels"] for row in result["curve"]] == [50 + 10 * step for step in range(25)]
    middle, last = result["curve"][15], result["curve"][-1]
    assert middle["uncertainty"] > middle["random"]
    assert result["roofline"] > last["random"] - 0.05
    assert (tmp_path / "out" / "baselines.png").read_bytes().startswith(b"\x89PNG")
    assert "uncertainty" in output
