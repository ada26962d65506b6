"""Ranks that are told other things, or do other things, than rank 0: what is allowed works, the rest is refused."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from outcomes import ended

from alcore.store.reading import Run


def test_another_validation_pool_is_refused(play: Any) -> None:
    failed = play(2, validate=True, val_seed=3)
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "the validation pool of rank 1 is not that of rank 0" in text


def test_rank_0_may_take_its_time_in_an_observer(play: Any) -> None:
    """Longer than an exchange between ranks may take."""
    ended(play(2, steps=1, observer="slow", timeout=2.0))


@pytest.mark.parametrize("option", [{"observer": "evaluates"}, {"label": "evaluates"}], ids=str)
def test_what_rank_0_does_alone_may_score(play: Any, option: Any) -> None:
    processes = play(2, steps=2, **option)
    ended(processes)
    assert ("evaluated" in processes.texts[0]) == ("observer" in option)
    assert "evaluated" not in processes.texts[1]


def test_a_criterion_that_reads_the_run_directory(play: Any, tmp_path: Path) -> None:
    reason, _, _ = ended(play(2, steps=9, budget=15))
    assert "15" in reason
    assert len(Run(tmp_path / "runs" / "r1").requests()) >= 15


def test_ranks_that_do_not_do_alike_are_told_so(play: Any) -> None:
    failed = play(2, query="astray", timeout=5.0)
    assert failed.codes == [1, 1]
    assert any("ranks must do alike" in text or "lost its connection" in text for text in failed.texts)


def test_late_answers_reach_all_ranks_in_the_same_step(play: Any, tmp_path: Path) -> None:
    _, _, labelled = ended(play(2, steps=5, label="late"))
    states = [one["state"] for one in Run(tmp_path / "runs" / "r1").requests()]
    assert labelled == 20 + states.count("labelled") or labelled == 20 + states.count("labelled") - 1


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGKILL, (130, 1)), (signal.SIGTERM, (130, 130))], ids=str)
def test_rank_0_hears_of_another_while_it_labels(
    start: Any, script: Path, tmp_path: Path, number: int, codes: Any
) -> None:
    processes = start(2, script, json.dumps({"wait": 100.0}), ALCORE_TEST_BEATS="0.3 3.0")
    until = time.monotonic() + 60
    while "labels" not in processes.said(0) and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    processes.kill(1, number)
    processes.wait(60)
    assert time.monotonic() - began < 60
    assert processes.codes[0] in codes
    assert Run(tmp_path / "runs" / "r1").meta()["status"] in ("interrupted", "failed")
