"""The installed command under torchrun, on two ranks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import essence

from alcore.store.reading import Run

COMMAND = ["-m", "alcore", "run", "--query", "uq", "--metrology", "f1", "--steps", "6", "--root", "runs"]


def torchrun(folder: Path, *words: str, before: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port"]
    return subprocess.Popen(
        [sys.executable, *launcher, str(port), *before, *COMMAND, *words],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


def workers(launcher: int) -> dict[int, int]:
    """Return the processes of the ranks, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except (OSError, ValueError):
            continue
        found |= {int(word[5:]): int(folder.name) for word in words if word.startswith(b"RANK=")}
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_the_command_runs_on_two_ranks_and_is_restarted_where_one_is_killed(tmp_path: Path) -> None:
    whole = torchrun(tmp_path, "--run-id", "whole")
    out, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    assert out.count("Ended: all 6 steps are done.") == 1
    assert err.count("Run whole: data moons") == 1
    assert "1 thread on each of 2 ranks" in err
    assert json.loads((tmp_path / "runs" / "whole" / "driver_log.json").read_text())["status"] == "done"
    assert len(Run(tmp_path / "runs" / "whole").steps()) == 6

    again = torchrun(tmp_path, "--run-id", "again", "--resume", "auto", before=("--max-restarts", "2"))
    log = tmp_path / "runs" / "again" / "console.log"
    until = time.monotonic() + 100
    while not (log.exists() and "step 2:" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(workers(again.pid)[1], signal.SIGKILL)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out.count("Ended: all 6 steps are done.") == 1
    found = [essence(tmp_path / "runs" / run) for run in ("whole", "again")]
    for one in found:  # ids of requests hash the id of the run
        one["requests"] = [{k: v for k, v in row.items() if k != "id"} for row in one["requests"]]
        one["labels"] = [row[1:] for row in one["labels"]]
        one["checkpoints"] = {file: one["checkpoints"][file] for file in one["checkpoints"] if "training" not in file}
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_a_restart_that_does_not_say_which_run_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHELASTIC_RESTART_COUNT": "1"}
    command = [sys.executable, "-m", "alcore", "run", "--run-id", "r1"]
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "this is restart 1 by torchrun" in refused.stderr
    assert "--run-id ID --resume auto" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_resume_auto_begins_a_run_or_goes_on_with_it(tmp_path: Path) -> None:
    command = [sys.executable, *COMMAND[:-4], "--root", "runs", "--run-id", "r1", "--resume", "auto", "--quiet"]
    for steps in ("2", "4", "4"):
        done = subprocess.run([*command, "--steps", steps], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "runs/r1"
        assert len(Run(tmp_path / "runs" / "r1").steps()) == int(steps)
        assert f"max_active_learning_steps = {steps}" in (tmp_path / "runs" / "r1" / "experiment.toml").read_text()
    plain = [word for word in command if word not in ("--resume", "auto")]
    refused = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "alcore resume r1 goes on with it" in refused.stderr
