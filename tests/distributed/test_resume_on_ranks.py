"""A run on several ranks that was killed or interrupted, and is started again, ends as an uninterrupted one."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from alcore_testing.essence import differences, essence_of
from outcomes import ended, without_training_checkpoints

from alcore.store.reading import Run

PLACES = [
    (0, 0, "training"), (1, 1, "training"), (0, 1, "labeling"), (1, 2, "metrology"), (0, 2, "metrology"),
]  # fmt: skip


@pytest.fixture
def expected(run_experiment: Any, tmp_path: Path) -> dict[str, Any]:
    """The results of the uninterrupted run on two ranks."""
    ended(run_experiment(2, root="whole", every_epoch=True))
    (tmp_path / "whole-paid").write_text((tmp_path / "paid").read_text())
    (tmp_path / "paid").unlink()
    return essence_of(tmp_path / "whole" / "r1")


def check(tmp_path: Path, expected: dict[str, Any], where: Any) -> None:
    found, expected = (
        without_training_checkpoints(essence_of(tmp_path / "runs" / "r1")),
        without_training_checkpoints(expected),
    )
    assert differences(expected, found) == [], where
    paid = sorted((tmp_path / "paid").read_text().splitlines())
    bought = set(paid)
    assert bought == set((tmp_path / "whole-paid").read_text().splitlines())
    # an answer that was not put yet is known to the label strategy alone, so it may be asked for again
    assert len(paid) - len(bought) <= 1, where


def test_run_resumes_after_a_rank_was_killed_at_any_place(
    run_experiment: Any, tmp_path: Path, expected: dict[str, Any]
) -> None:
    for rank, step, phase in PLACES:
        for left in ("runs", "paid"):
            shutil.rmtree(tmp_path / left, ignore_errors=True)
        (tmp_path / "paid").unlink(missing_ok=True)
        killed = run_experiment(2, every_epoch=True, fault=[rank, step, phase, "kill"])
        assert killed.codes[rank] == -signal.SIGKILL
        assert killed.codes[1 - rank] in (1, 130), "\n".join(killed.texts)
        ended(run_experiment(2, every_epoch=True, restore=True))
        check(tmp_path, expected, (rank, step, phase))


def test_run_with_pending_samples_resumes_after_a_rank_was_killed(run_experiment: Any, tmp_path: Path) -> None:
    settings = {"label": "a step late", "steps": 4}
    ended(run_experiment(2, root="whole", **settings))
    assert run_experiment(2, fault=[1, 3, "metrology", "kill"], **settings).codes[1] == -signal.SIGKILL
    ended(run_experiment(2, restore=True, **settings))
    both = (without_training_checkpoints(essence_of(tmp_path / root / "r1")) for root in ("whole", "runs"))
    assert differences(*both) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_interrupted_rank_ends_all_ranks_between_two_epochs(
    run_experiment: Any, tmp_path: Path, expected: dict[str, Any], rank: int
) -> None:
    interrupted = run_experiment(2, every_epoch=True, fault=[rank, 1, "training", "interrupt"])
    assert interrupted.codes == [130, 130], "\n".join(interrupted.texts)
    run = Run(tmp_path / "runs" / "r1")
    assert run.meta()["status"] == "interrupted"
    assert [checkpoint["epoch"] for checkpoint in run.checkpoints() if checkpoint["step"] == 1] == [1]
    ended(run_experiment(2, every_epoch=True, restore=True))
    check(tmp_path, expected, rank)


def test_run_resumes_after_labeling_was_interrupted(
    run_experiment: Any, start: Any, script: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    processes = start(2, script, json.dumps({"every_epoch": True, "wait": 0.3}))
    until = time.monotonic() + 60
    while not (tmp_path / "paid").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for rank in (0, 1):
        processes.kill(rank, signal.SIGTERM)
    assert processes.wait().codes == [130, 130], "\n".join(processes.texts)
    ended(run_experiment(2, every_epoch=True, restore=True))
    check(tmp_path, expected, "labeling")


def test_other_number_of_ranks_needs_other_ranks_option(run_experiment: Any, tmp_path: Path) -> None:
    ended(run_experiment(2, steps=1))
    for count in (1, 3):
        refused = run_experiment(count, steps=2, restore=True)
        assert refused.codes == [1] * count
        assert "run r1 is of 2 processes, and here" in refused.texts[0]
        assert "--other-ranks" in refused.texts[0]
    for count, steps in ((3, 2), (1, 3), (2, 4)):
        ended(run_experiment(count, steps=steps, restore=True, other_ranks=True))
    run = Run(tmp_path / "runs" / "r1")
    assert len(run.steps()) == 4
    paid = (tmp_path / "paid").read_text().splitlines()
    assert len(paid) == len(set(paid)) == len(run.requests())
