"""`alcore resume`: through the installed command, with signals as a person or a cluster sends them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import SCRIPT, run_forked

from alcore.store.reading import Run


def alcore(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_forked(SCRIPT, *arguments, cwd=folder)


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([SCRIPT, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(run: Path, step: int) -> None:
    """Wait until a run has committed a step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (run / "run.db").exists() and len(Run(run).steps()) > step:
            return
        time.sleep(0.02)
    raise AssertionError(f"{run} never came to step {step}")


def content(run: Path) -> dict[str, Any]:
    stored = Run(run)
    files = {
        checkpoint["file"]: (run / "ckpt" / checkpoint["file"]).read_bytes() for checkpoint in stored.checkpoints()
    }
    return {
        "records": (run / "f1_metrology.json").read_text(),
        "requests": [
            (request["step"], request["sample"], request["score"], request["state"]) for request in stored.requests()
        ],
        "last": files[max(name for name in files if name[0].isdigit())],
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = alcore("run", "--steps", "60", "--run-id", "whole", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "active_learning_logs" / "whole"


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_run_ended_by_a_signal_resumes_to_the_same_result(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    child = start("run", "--steps", "60", "--run-id", "cut", folder=tmp_path)
    run = tmp_path / "active_learning_logs" / "cut"
    wait_for_step(run, 3)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
        assert Run(run).meta()["status"] == "stopped"
    else:
        assert child.returncode == 130
        assert "Go on with: alcore resume cut" in errors
        assert Run(run).meta()["status"] == "interrupted"
    assert 3 < len(Run(run).steps()) < 60
    done = alcore("resume", "cut", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(run) == content(whole)


@pytest.mark.system
def test_finished_run_is_extended(whole: Path, tmp_path: Path) -> None:
    assert alcore("run", "--steps", "20", "--run-id", "short", folder=tmp_path).returncode == 0
    ended = alcore("resume", "short", folder=tmp_path)
    assert ended.returncode == 0
    assert "has ended already: all 20 steps are done. Give it more with --steps" in ended.stderr
    done = alcore("resume", "short", "--steps", "60", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 60
    run = tmp_path / "active_learning_logs" / "short"
    assert content(run) == content(whole)
    assert "max_active_learning_steps = 60" in (run / "experiment.toml").read_text()


@pytest.mark.system
def test_second_writer_is_refused_with_the_holders_process(tmp_path: Path) -> None:
    child = start("run", "--steps", "400", "--run-id", "held", folder=tmp_path)
    try:
        wait_for_step(tmp_path / "active_learning_logs" / "held", 0)
        os.kill(child.pid, signal.SIGSTOP)  # asleep, it holds the lock as long as the test needs
        refused = alcore("resume", "held", folder=tmp_path)
        assert refused.returncode == 2
        assert f"process {child.pid}" in refused.stderr
    finally:
        child.kill()
        child.communicate()


@pytest.mark.system
def test_damaged_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert alcore("run", "--steps", "3", "--run-id", "hurt", folder=tmp_path).returncode == 0
    folder = tmp_path / "active_learning_logs" / "hurt" / "ckpt"
    *_, before, file = sorted(folder.glob("0*"))
    file.write_bytes(file.read_bytes()[:-10])
    refused = alcore("resume", "hurt", "--steps", "4", folder=tmp_path)
    assert refused.returncode == 2
    assert "is damaged" in refused.stderr
    assert "Traceback" not in refused.stderr
    remedy = before.name
    assert f"--checkpoint {remedy}" in refused.stderr
    done = alcore("resume", "hurt", "--steps", "4", "--checkpoint", remedy, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.system
def test_run_built_in_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "moons.py"
    run_forked(script, "--steps", "1", cwd=tmp_path).check_returncode()
    (run,) = (tmp_path / "active_learning_logs").glob("[!.]*")
    refused = alcore("resume", run.name, folder=tmp_path)
    assert refused.returncode == 2
    assert "driver.restore()" in refused.stderr


@pytest.mark.system
def test_file_of_a_run_directory_is_never_imported(tmp_path: Path) -> None:
    assert alcore("run", "--steps", "1", "--run-id", "strange", folder=tmp_path).returncode == 0
    run = tmp_path / "active_learning_logs" / "strange"
    for name in ("sklearn", "tqdm", "torch", "alcore_uq"):
        (run / f"{name}.py").write_text("raise SystemExit('code of a run directory ran')\n")
    process = start("resume", str(run), "--steps", "2", folder=run)  # which imports all by itself
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
