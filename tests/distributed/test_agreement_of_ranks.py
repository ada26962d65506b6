"""Ranks that are given other things, or do other things, than rank 0: what is allowed works, the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from outcomes import ended

from alcore.store.reading import Run


@pytest.mark.parametrize(
    ("options", "pool"), [({"data_seed": 3}, "train"), ({"validate": True, "val_seed": 3}, "validation")], ids=str
)
def test_other_data_on_a_rank_are_refused(run_experiment: Any, tmp_path: Path, options: Any, pool: str) -> None:
    failed = run_experiment(2, **options)
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert f"the {pool} pool of rank 1 is not that of rank 0" in text
    assert list(tmp_path.glob("runs/*")) == []


def test_loop_that_does_not_average_gradients_is_refused(run_experiment: Any) -> None:
    failed = run_experiment(2, loop="unshared")
    assert failed.codes == [1, 1]
    for text in failed.texts:
        assert "the learner of rank 1 has other weights than that of rank 0 after training" in text
        assert "train_step_fn(model, batch)" in text


def test_ranks_that_exchange_different_things_end_at_the_timeout(run_experiment: Any) -> None:
    failed = run_experiment(2, query="astray", timeout=5.0)
    assert all(failed.codes)
    assert any("lost its connection to the others" in text for text in failed.texts)


@pytest.mark.parametrize("option", [{"observer": "evaluates"}, {"label": "evaluates"}], ids=str)
def test_observers_and_label_strategies_evaluate_on_rank_0_alone(run_experiment: Any, option: Any) -> None:
    processes = run_experiment(2, steps=2, **option)
    ended(processes)
    assert ("evaluated" in processes.texts[0]) == ("observer" in option)
    assert "evaluated" not in processes.texts[1]


def test_stop_criterion_that_reads_the_run_directory_ends_all_ranks(run_experiment: Any, tmp_path: Path) -> None:
    reason, _, _ = ended(run_experiment(2, steps=9, budget=15))
    assert "15" in reason
    assert len(Run(tmp_path / "runs" / "r1").requests()) >= 15


def test_late_answers_reach_all_ranks_in_the_same_step(run_experiment: Any, tmp_path: Path) -> None:
    _, _, labeled = ended(run_experiment(2, steps=5, label="late"))
    states = [request["state"] for request in Run(tmp_path / "runs" / "r1").requests()]
    assert labeled - 20 in (states.count("labeled"), states.count("labeled") - 1)
