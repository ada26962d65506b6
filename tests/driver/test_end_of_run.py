"""`RunSession`: how a run ended is committed with its last step, whatever happens after that."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alcore
from alcore import Driver
from alcore.store.reading import Run
from alcore.strategies import BaseQuery

Build = Callable[..., Driver]


class Enough:
    """A stop criterion: of a run's life, since it keeps no state."""

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        return "two were enough" if driver.active_learning_step_idx >= 2 else None


class TwiceQuery(BaseQuery):
    """Asks for samples in the first two steps only."""

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        if self.driver.active_learning_step_idx < 2:
            query_queue.put(int(next(self.driver.candidates())[0]))


ENDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "all 3 steps are done": lambda toys: {},
    "two were enough": lambda toys: {"plugins": [Enough()]},
    "the budget of 6 is spent": lambda toys: {"budget": 6.0},
    "the pool has no unlabeled sample left": lambda toys: {"train_datapool": toys.pool(n=14)},
    "the query strategies asked for nothing": lambda toys: {"query_strategies": [TwiceQuery()]},
}


class Kept:
    """Keeps what a process that is killed after each step, before its end is announced, would leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @alcore.runhook
    def alcore_step_end(self, driver: Driver) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(driver.log_dir, self.folder)


@pytest.mark.parametrize("reason", ENDS)
def test_run_that_was_killed_after_its_last_step_has_ended(
    build: Build, toys: Any, tmp_path: Path, reason: str
) -> None:
    def settings() -> dict[str, Any]:
        options = ENDS[reason](toys)
        limit = {} if "3 steps" in reason else {"max_active_learning_steps": None}
        return {"run_id": "r", **limit, "queue_cls": queue.Queue, **options}

    first = settings()
    whole = build(**{**first, "plugins": [*first.get("plugins", ()), Kept(tmp_path / "killed" / "r")]})
    whole.run()
    assert whole.stop_reason == reason
    killed = Run(tmp_path / "killed" / "r")
    assert (killed.meta()["status"], killed.meta()["reason"]) == ("done", reason)
    resumed = build(**{**settings(), "root_log_dir": tmp_path / "killed"})
    resumed.restore()
    resumed.run()
    assert resumed.stop_reason == reason
    assert killed.decisions() == Run(whole.log_dir).decisions()
    assert "ended" in killed.meta()


def test_error_after_the_last_step_is_raised_and_the_run_has_ended(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting:
        @alcore.runhook
        def alcore_step_end(self, record: Any) -> None:
            if record["step"] == 2:
                raise KeyboardInterrupt

    driver = build(plugins=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    meta = Run(driver.log_dir).meta()
    assert (meta["status"], meta["reason"], meta["error"]) == ("done", "all 3 steps are done", None)


def test_error_in_an_earlier_step_is_how_the_run_ended(build: Build) -> None:
    class Failing:
        @alcore.runhook
        def alcore_should_stop(self, driver: Driver) -> str | None:
            if driver.active_learning_step_idx == 1:
                raise RuntimeError("no idea")
            return None

    driver = build(plugins=[Failing()])
    with pytest.raises(RuntimeError, match="no idea"):
        driver.run()
    meta = Run(driver.log_dir).meta()
    assert (meta["status"], meta["reason"], meta["error"]) == ("failed", None, "RuntimeError: no idea")


def test_run_that_ended_by_its_budget_adds_nothing_until_the_budget_is_raised(build: Any) -> None:
    """Half a label is left, which is too little for another one."""

    def resumed(budget: float) -> Driver:
        driver: Driver = build(run_id="r", max_active_learning_steps=8, budget=budget)
        driver.restore()
        driver.run()
        return driver

    first = build(run_id="r", max_active_learning_steps=8, budget=7.5)
    first.run()
    run = Run(first.log_dir)
    before, checkpoints = run.decisions(), run.checkpoints()
    assert len(run.requests()) == 7
    for _ in range(2):
        assert str(resumed(7.5).end_reason) == "the budget of 7.5 is spent"
        assert (run.decisions(), run.checkpoints()) == (before, checkpoints)
    assert resumed(9.0).active_learning_step_idx > len(before["steps"])
    assert len(run.requests()) == 9
