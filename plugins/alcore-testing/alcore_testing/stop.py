"""The contract of stop criteria."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pluggy
import pytest

from alcore import AlcoreError, Driver, Phase, runhook
from alcore.hookspecs import Lifecycle
from alcore.randomness import seed_everything
from alcore.store import Run
from alcore_testing.contract import Contract
from alcore_testing.drivers import assert_same_run, build_driver, whole_and_resumed
from alcore_testing.plain import text_of
from alcore_testing.toys import ToyMetrology, toy_loss
from alcore_testing.watch import untouched

STEPS = 5


class StopCriterionContract(Contract):
    """What every stop criterion promises: a reason or None, the same for the same run, and nothing disturbed.

    Override ``make(**parameters)``, and give parameters with which a toy run of 5 steps ends early, after step 0
    (`stops_with`), and with which it doesn't (`continues_with`). The toy run measures ``accuracy``, ``f1`` and
    ``score`` by a `ToyMetrology`, on 40 samples of which 6 are labeled, 3 more each step.

    Examples
    --------
    >>> class TestMyCriterion(StopCriterionContract):
    ...     name = "mine"
    ...     stops_with = {"samples": 12}
    ...     continues_with = {"samples": 1000}
    ...     def make(self, **parameters):
    ...         return MyCriterion(**parameters)
    """

    kind = "stop"

    stops_with: ClassVar[Mapping[str, Any]] = {}
    continues_with: ClassVar[Mapping[str, Any]] = {}

    def one(self) -> Any:
        """Return a fresh criterion that doesn't stop."""
        return self.make(**self.continues_with)

    def metrology(self) -> list[Any]:
        """Return the metrology strategies of the toy run."""
        return [ToyMetrology()]

    def queries(self) -> list[Any]:
        """Return the query strategies of the toy run; a `ToyQuery` where there is none."""
        return []

    def build(self, folder: Path, *criteria: Any, plugins: Any = (), **settings: Any) -> Driver:
        """Return a driver of the toy run."""
        given: dict[str, Any] = {"metrology": self.metrology(), "max_active_learning_steps": STEPS}
        return build_driver(folder, *self.queries(), plugins=[*criteria, *plugins], **{**given, **settings})

    def test_criterion_ends_the_run(self, tmp_path: Path) -> None:
        """With `stops_with` the run ends before its last step; the reason is told and recorded, and no label bought."""
        driver = self.build(tmp_path, self.make(**self.stops_with))
        driver.run(toy_loss)
        last = driver.active_learning_step_idx - 1
        assert 0 < last < STEPS - 1, f"it stopped in step {last}: {driver.stop_reason}"
        assert driver.stop_reason
        assert driver.stop_reason.strip() == driver.stop_reason
        assert Run(driver.log_dir).meta()["reason"] == driver.stop_reason
        assert Run(driver.log_dir).steps()[-1]["requested"] == 0

    def test_run_goes_on_while_criterion_is_not_met(self, tmp_path: Path) -> None:
        """With `continues_with` the run ends by its number of steps."""
        driver = self.build(tmp_path, self.one())
        driver.run(toy_loss)
        assert driver.stop_reason == f"all {STEPS} steps are done"

    def test_equal_runs_end_in_the_same_step(self, tmp_path: Path) -> None:
        """A second run of the seed ends in the same step for the same reason."""
        ends = []
        for name in ("one", "other"):
            seed_everything(0)
            driver = self.build(tmp_path / name, self.make(**self.stops_with))
            driver.run(toy_loss)
            ends.append((driver.active_learning_step_idx, driver.stop_reason))
        assert ends[0] == ends[1]

    def test_criterion_changes_nothing(self, tmp_path: Path) -> None:
        """To ask it changes neither learner, generators, pools nor records, and asks for no label."""
        watcher = _Watcher(self.one())
        self.build(tmp_path, watcher).run(toy_loss)
        assert len(watcher.answers) == STEPS
        assert all(answer is None for answer in watcher.answers)

    def test_run_without_metrology_goes_on_or_is_refused(self, tmp_path: Path) -> None:
        """Without metrology it works, or says what it needs; it doesn't break."""
        driver = self.build(tmp_path, self.one(), metrology=[])
        try:
            driver.run(toy_loss)
        except AlcoreError as error:
            assert len(str(error)) > 20  # noqa: PT017 - either is right
        else:
            assert driver.stop_reason

    @pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path, ends: bool) -> None:
        """A run that was interrupted and resumed ends in the same step for the same reason, with the same state.

        It is interrupted before each step after the first, so that all that was gathered until then must come back.
        """
        chosen = self.stops_with if ends else self.continues_with

        def build(folder: Path, **settings: Any) -> Driver:
            return self.build(folder, self.make(**chosen), **settings)

        step, last = 1, 1
        while step <= last:
            whole, resumed = whole_and_resumed(build, tmp_path / str(step), step, Phase.TRAINING, toy_loss)
            last, end = (driver.active_learning_step_idx - 1 for driver in (whole, resumed))
            assert (end, resumed.stop_reason) == (last, whole.stop_reason), (
                f"interrupted before step {step}, the run ends in step {end}: {resumed.stop_reason}; without a break "
                f"in step {last}: {whole.stop_reason}. What it gathers over steps belongs in state_dict"
            )
            assert_same_run(resumed, whole)
            step += 1


class _Watcher:
    """A criterion that asks another one, and looks at what it touches."""

    def __init__(self, criterion: Any) -> None:
        self._manager = pluggy.PluginManager(runhook.project_name)
        self._manager.add_hookspecs(Lifecycle)
        self._manager.register(criterion)
        self.answers: list[Any] = []

    @runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        """Ask the other one."""
        before = self._asked(driver)
        with untouched(driver):
            reason: str | None = self._manager.hook.alcore_should_stop(driver=driver)
        self.answers.append(reason)
        assert self._asked(driver) == before, "it changed records, or asked for labels"
        return reason

    @staticmethod
    def _asked(driver: Driver) -> Any:
        return text_of([strategy.records for strategy in driver.metrology_strategies]), driver.query_queue.qsize()
