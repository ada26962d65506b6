"""What goes wrong on one rank ends all, soon, with the reason; nobody hangs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import ended

from alcore.store.reading import Run


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("phase", ["training", "metrology", "labeling"])
def test_an_exception_ends_all_with_it(play: Any, tmp_path: Path, rank: int, phase: str) -> None:
    if phase == "labeling":
        rank = 0  # it labels alone
    began = time.monotonic()
    failed = play(2, fault=[rank, 1, phase, "raise"])
    assert time.monotonic() - began < 60
    assert failed.codes == [1, 1]
    assert f"ValueError: trouble in {phase}" in failed.texts[rank]
    other = 1 - rank
    assert f"rank {rank} failed, so that rank {other} ends too: ValueError: trouble in {phase}" in failed.texts[other]
    meta = Run(tmp_path / "runs" / "r1").meta()
    assert meta["status"] == "failed"
    assert f"trouble in {phase}" in meta["error"]
    ended(play(2, restore=True))


@pytest.mark.parametrize("rank", [0, 1])
def test_without_torchrun_the_store_goes_with_rank_0_and_yet_all_end(start: Any, script: Path, rank: int) -> None:
    options = json.dumps({"fault": [rank, 1, "training", "raise"]})
    failed = start(2, script, options, TORCHELASTIC_USE_AGENT_STORE="False").wait()
    assert failed.codes == [1, 1]
    said = failed.texts[1 - rank]
    assert f"rank {rank} failed" in said or "lost its connection to the others" in said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_nan_on_one_rank_ends_all(play: Any, tmp_path: Path, rank: int) -> None:
    failed = play(2, fault=[rank, 1, "training", "nan"])
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "DivergedError: the training loss became nan in epoch 0" in text
    assert "DivergedError" in Run(tmp_path / "runs" / "r1").meta()["error"]
    assert max(one["step"] for one in Run(tmp_path / "runs" / "r1").checkpoints()) == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_leaves_without_a_word_ends_all(play: Any, rank: int) -> None:
    failed = play(2, fault=[rank, 1, "training", "exit"])
    assert failed.codes[rank] == 3
    assert failed.codes[1 - rank] == 1
    assert "lost its connection to the others" in failed.texts[1 - rank]
    ended(play(2, restore=True))


def test_a_rank_that_hangs_ends_the_others_when_its_time_is_over(play: Any, start: Any, script: Path) -> None:
    processes = start(2, script, '{"fault": [1, 1, "training", "hang"]}')
    until = time.monotonic() + 60
    while "lost its connection" not in processes.said(0) and time.monotonic() < until:
        time.sleep(0.1)
    assert "lost its connection to the others" in processes.said(0)


def test_ranks_with_other_data_are_refused(play: Any, tmp_path: Path) -> None:
    failed = play(2, data_seed=3)
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "the train pool of rank 1 is not that of rank 0" in text
    assert list((tmp_path / "runs").glob("*")) == [] if (tmp_path / "runs").exists() else True


def test_a_loop_that_does_not_share_gradients_is_found_out(play: Any) -> None:
    failed = play(2, loop="unshared")
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "the learner of rank 1 has other weights than that of rank 0 after training" in text
        assert "train_step_fn(model, batch)" in text


def test_a_rank_that_never_comes_is_waited_for_in_vain(start: Any, script: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.py"
    lonely.write_text("from alcore import DistributedManager\nDistributedManager(join_timeout=2.0).join()\n")
    alone = start(1, lonely, WORLD_SIZE="2").wait()
    assert alone.codes == [1]
    assert "UsageError: rank 0 of 2 can't join the others at 127.0.0.1:" in alone.texts[0]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2; ranks are counted from 0"),
        ({"RANK": "one"}, "the environment variable RANK is 'one'; it must be a whole number"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": ""}, "MASTER_ADDR not set: processes can't find each other"),
    ],
)
def test_an_environment_that_can_not_be(start: Any, tmp_path: Path, environment: Any, message: str) -> None:
    script = tmp_path / "join.py"
    script.write_text("from alcore import DistributedManager\nDistributedManager().join()\n")
    refused = start(1, script, **environment).wait()
    assert refused.codes == [1]
    assert message in refused.texts[0]
