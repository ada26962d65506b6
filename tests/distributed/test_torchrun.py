"""Under torchrun: restarts of the command, and how all ranks end when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alcore_testing.essence import differences, essence_of
from helpers.ports import reserved_port
from helpers.processes import run_forked
from outcomes import without_training_checkpoints

from alcore.store.reading import Run

COMMAND = ["-m", "alcore", "run", "--query", "uq", "--metrology", "f1", "--steps", "6", "--root", "runs"]


Torchrun = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Torchrun]:
    """Start a command, by default of alcore with more words, on two ranks in the test's folder."""
    with contextlib.ExitStack() as reserved:

        def begin(*words: str, before: tuple[str, ...] = (), command: list[str] = COMMAND) -> subprocess.Popen[str]:
            address = ["--master-addr", "127.0.0.1", "--master-port", str(reserved.enter_context(reserved_port()))]
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *address]
            return subprocess.Popen(
                [sys.executable, *launcher, *before, *command, *words],
                cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

        yield begin


def workers(launcher: int) -> dict[int, int]:
    """Return the processes of the ranks, by rank."""
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except (OSError, ValueError):
            continue
        processes |= {int(word[5:]): int(folder.name) for word in words if word.startswith(b"RANK=")}
    return processes


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_command_on_two_ranks_is_restarted_after_one_is_killed(torchrun: Torchrun, tmp_path: Path) -> None:
    whole = torchrun("--run-id", "whole")
    out, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    assert out.count("Ended: all 6 steps are done.") == 1
    assert err.count("Run whole: data moons") == 1
    assert "1 thread on each of 2 ranks" in err
    assert json.loads((tmp_path / "runs" / "whole" / "driver_log.json").read_text())["status"] == "done"
    assert len(Run(tmp_path / "runs" / "whole").steps()) == 6

    again = torchrun("--run-id", "again", "--resume", "auto", before=("--max-restarts", "2"))
    log = tmp_path / "runs" / "again" / "console.log"
    until = time.monotonic() + 100
    while not (log.exists() and "step 2:" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(workers(again.pid)[1], signal.SIGKILL)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out.count("Ended: all 6 steps are done.") == 1
    essences = [without_training_checkpoints(essence_of(tmp_path / "runs" / run)) for run in ("whole", "again")]
    assert differences(*essences) == []


def test_restart_without_run_id_is_refused(tmp_path: Path) -> None:
    environment = {"TORCHELASTIC_RESTART_COUNT": "1"}
    refused = run_forked("-m", "alcore", "run", "--run-id", "r1", cwd=tmp_path, env=environment)
    assert refused.returncode == 2
    assert "this is restart 1 by torchrun" in refused.stderr
    assert "--run-id ID --resume auto" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_resume_auto_begins_a_run_or_goes_on_with_it(tmp_path: Path) -> None:
    command = [*COMMAND[:-4], "--root", "runs", "--run-id", "r1", "--resume", "auto", "--quiet"]
    for steps in ("2", "4", "4"):
        done = run_forked(*command, "--steps", steps, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "runs/r1"
        assert len(Run(tmp_path / "runs" / "r1").steps()) == int(steps)
        assert f"max_active_learning_steps = {steps}" in (tmp_path / "runs" / "r1" / "experiment.toml").read_text()
    plain = [word for word in command if word not in ("--resume", "auto")]
    refused = run_forked(*plain, cwd=tmp_path)
    assert refused.returncode == 2
    assert "alcore resume r1 goes on with it" in refused.stderr


FAILING = """
import os, signal, time
from alcore import DistributedManager

ranks = DistributedManager(timeout=60.0).join()
ranks.begin()
if ranks.rank == 1:
    {action}
{meanwhile}
"""


@pytest.mark.parametrize("meanwhile", ["ranks.any(True)", "ranks.on_rank_0(lambda: time.sleep(1000))"])
@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("raise ValueError('trouble')", "ValueError: trouble"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Signal 9 (SIGKILL) received by PID"),
    ],
)
def test_torchrun_ends_all_ranks_and_shows_the_root_cause(
    torchrun: Torchrun, tmp_path: Path, action: str, cause: str, meanwhile: str
) -> None:
    """Rank 0 waits for the others, or labels alone."""
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(action=action, meanwhile=meanwhile))
    began = time.monotonic()
    launcher = torchrun(command=[str(script)])
    _, err = launcher.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert launcher.returncode == 1
    root = err.partition("Root Cause (first observed failure):")[2]
    assert "rank      : 1 (local_rank: 1)" in root
    assert cause in root
