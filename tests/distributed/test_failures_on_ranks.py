"""What goes wrong on one rank ends all ranks soon, with its reason."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import ended

from alcore.store.reading import Run


@pytest.mark.parametrize(
    ("rank", "phase"), [(0, "training"), (1, "training"), (0, "metrology"), (1, "metrology"), (0, "labeling")]
)
def test_exception_on_one_rank_ends_all_ranks_with_it(
    run_experiment: Any, tmp_path: Path, rank: int, phase: str
) -> None:
    began = time.monotonic()
    failed = run_experiment(2, fault=[rank, 1, phase, "raise"])
    assert time.monotonic() - began < 60
    assert failed.codes == [1, 1]
    assert f"ValueError: trouble in {phase}" in failed.texts[rank]
    other = 1 - rank
    assert f"rank {rank} failed, so that rank {other} ends too: ValueError: trouble in {phase}" in failed.texts[other]
    meta = Run(tmp_path / "runs" / "r1").meta()
    assert meta["status"] == "failed"
    assert f"trouble in {phase}" in meta["error"]
    ended(run_experiment(2, restore=True))


@pytest.mark.parametrize("rank", [0, 1])
def test_exception_without_torchrun_ends_all_ranks(start: Any, script: Path, rank: int) -> None:
    """Rank 0 holds the store then, and may have ended before another rank reads its report."""
    options = json.dumps({"fault": [rank, 1, "training", "raise"]})
    failed = start(2, script, options, TORCHELASTIC_USE_AGENT_STORE="False").wait()
    assert failed.codes == [1, 1]
    text = failed.texts[1 - rank]
    assert f"rank {rank} failed" in text or "lost its connection to the others" in text


@pytest.mark.parametrize("rank", [0, 1])
def test_nan_loss_on_one_rank_ends_all_ranks(run_experiment: Any, tmp_path: Path, rank: int) -> None:
    failed = run_experiment(2, fault=[rank, 1, "training", "nan"])
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "DivergedError: the training loss became nan in epoch 0" in text
    run = Run(tmp_path / "runs" / "r1")
    assert "DivergedError" in run.meta()["error"]
    assert max(checkpoint["step"] for checkpoint in run.checkpoints()) == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_exits_without_a_report_ends_all_ranks(run_experiment: Any, rank: int) -> None:
    failed = run_experiment(2, fault=[rank, 1, "training", "exit"])
    assert failed.codes[rank] == 3
    assert failed.codes[1 - rank] in (1, 130)  # its connection is lost, or it is asked to end
    ended(run_experiment(2, restore=True))


def test_rank_that_hangs_in_training_ends_the_others_at_the_timeout(start: Any, script: Path) -> None:
    processes = start(2, script, json.dumps({"fault": [1, 1, "training", "hang"], "timeout": 8.0}))
    assert processes.ends(0, 90) == 1
    assert "lost its connection to the others" in processes.said(0)


def test_interruption_of_another_rank_ends_labeling_after_the_next_answer(
    start: Any, script: Path, tmp_path: Path
) -> None:
    processes = start(2, script, json.dumps({"wait": 1.5}))
    until = time.monotonic() + 60
    while "labels" not in processes.said(0) and time.monotonic() < until:
        time.sleep(0.05)
    processes.kill(1, signal.SIGTERM)
    assert [processes.ends(rank, 30) for rank in (1, 0)] == [130, 130]
    run = Run(tmp_path / "runs" / "r1")
    assert run.meta()["status"] == "interrupted"
    assert len(run.requests()) > len((tmp_path / "paid").read_text().splitlines())
    ended(start(2, script, json.dumps({"restore": True})).wait())
    paid = (tmp_path / "paid").read_text().splitlines()
    assert len(set(paid)) == len(run.requests())
