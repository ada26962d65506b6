"""A run on several ranks that was killed, or asked to end, and is started again ends as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import ended, ends_of, essence

from alcore.store.reading import Run

PLACES = [
    (0, 0, "training"), (1, 1, "training"), (0, 1, "labeling"), (1, 2, "metrology"), (0, 2, "metrology"),
]  # fmt: skip


@pytest.fixture
def expected(play: Any, tmp_path: Path) -> dict[str, Any]:
    """What the uninterrupted run of two ranks gives; it is bought for by nobody."""
    ended(play(2, root="whole", every_epoch=True))
    (tmp_path / "whole-paid").write_text((tmp_path / "paid").read_text())
    (tmp_path / "paid").unlink()
    return essence(tmp_path / "whole" / "r1")


def check(tmp_path: Path, expected: dict[str, Any], where: Any) -> None:
    found, expected = ends_of(essence(tmp_path / "runs" / "r1")), ends_of(expected)
    assert [name for name in expected if found[name] != expected[name]] == [], where
    paid = sorted((tmp_path / "paid").read_text().splitlines())
    bought = set(paid)
    assert bought == set((tmp_path / "whole-paid").read_text().splitlines())
    # between the answer and its put nobody but the labeler knows of it, so one may be asked for again
    assert len(paid) - len(bought) <= 1, where


def test_killed_at_any_place(play: Any, tmp_path: Path, expected: dict[str, Any]) -> None:
    for rank, step, phase in PLACES:
        for left in ("runs", "paid"):
            shutil.rmtree(tmp_path / left, ignore_errors=True)
        (tmp_path / "paid").unlink(missing_ok=True)
        killed = play(2, every_epoch=True, fault=[rank, step, phase, "kill"])
        assert killed.codes[rank] == -signal.SIGKILL
        assert killed.codes[1 - rank] == 1, "\n".join(killed.texts)
        ended(play(2, every_epoch=True, restore=True))
        check(tmp_path, expected, (rank, step, phase))


@pytest.mark.parametrize("rank", [0, 1])
def test_asked_to_end_all_end_together_between_two_epochs(
    play: Any, tmp_path: Path, expected: dict[str, Any], rank: int
) -> None:
    asked = play(2, every_epoch=True, fault=[rank, 1, "training", "interrupt"])
    assert asked.codes == [130, 130], "\n".join(asked.texts)
    run = Run(tmp_path / "runs" / "r1")
    assert run.meta()["status"] == "interrupted"
    assert [one["epoch"] for one in run.checkpoints() if one["step"] == 1] == [1]
    ended(play(2, every_epoch=True, restore=True))
    check(tmp_path, expected, rank)


def test_asked_to_end_while_rank_0_labels(
    play: Any, start: Any, script: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    processes = start(2, script, json.dumps({"every_epoch": True, "wait": 0.3}))
    until = time.monotonic() + 60
    while not (tmp_path / "paid").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for rank in (0, 1):
        processes.kill(rank, signal.SIGTERM)
    assert processes.wait().codes == [130, 130], "\n".join(processes.texts)
    ended(play(2, every_epoch=True, restore=True))
    check(tmp_path, expected, "labeling")


def test_another_number_of_ranks_is_refused_unless_asked_for(play: Any, tmp_path: Path) -> None:
    ended(play(2, steps=1))
    for count in (1, 3):
        refused = play(count, steps=2, restore=True)
        assert refused.codes == [1] * count
        assert "run r1 is of 2 processes, and here" in refused.texts[0]
        assert "--other-ranks" in refused.texts[0]
    for count, steps in ((3, 2), (1, 3), (2, 4)):
        ended(play(count, steps=steps, restore=True, other_ranks=True))
    run = Run(tmp_path / "runs" / "r1")
    assert len(run.steps()) == 4
    paid = (tmp_path / "paid").read_text().splitlines()
    assert len(paid) == len(set(paid)) == len(run.requests())
