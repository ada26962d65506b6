"""Stop criteria with one fault each, and the contract test that each fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from alcore_testing import StopCriterionContract

import alcore
from alcore import UsageError


class Enough:
    """Ends the run when it was asked so often that it has seen so many samples; the count is its state."""

    def __init__(self, samples: int = 1000) -> None:
        self.samples = samples
        self.calls = 0

    @alcore.runhook
    def alcore_should_stop(self, driver: Any) -> str | None:
        self.calls += 1
        return self.decide(driver)

    def decide(self, driver: Any) -> str | None:
        count = len(driver.train_datapool)
        return f"{count} samples are enough, at call {self.calls}" if count >= self.samples else None

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


class TestTheCorrectOne(StopCriterionContract):
    stops_with, continues_with = {"samples": 12}, {"samples": 1000}

    def make(self, **parameters: Any) -> Any:
        return Enough(**parameters)


class Mutant(Enough):
    test, words = "", ""


class NeverStops(Mutant):
    """It is asked, and always says no."""

    test, words = "test_criterion_ends_the_run", "all 5 steps are done"

    def decide(self, driver: Any) -> str | None:
        return None


class SaysYes(Mutant):
    """It returns True where a reason belongs."""

    test, words = "test_criterion_ends_the_run", "must return the reason or None"

    def decide(self, driver: Any) -> Any:
        return super().decide(driver) is not None


class SaysNothing(Mutant):
    """Its reason is an empty text, which is none."""

    test, words = "test_criterion_ends_the_run", "all 5 steps are done"

    def decide(self, driver: Any) -> str | None:
        return "" if super().decide(driver) else None


class StopsAtOnce(Mutant):
    """It doesn't look at the number that it was given."""

    test, words = "test_run_goes_on_while_criterion_is_not_met", "assert"

    def decide(self, driver: Any) -> str | None:
        return "enough"


class TossesACoin(Mutant):
    """Each object has another idea of how much is enough."""

    test, words = "test_equal_runs_end_in_the_same_step", "assert"
    made = 0

    def __init__(self, samples: int = 1000) -> None:
        super().__init__(samples + 3 * (TossesACoin.made % 2))
        TossesACoin.made += 1


class DropsRecords(Mutant):
    """It takes the records that it looked at out of their list."""

    test, words = "test_criterion_changes_nothing", "changed records"

    def decide(self, driver: Any) -> str | None:
        driver.metrology_strategies[0].records.clear()
        return super().decide(driver)


class LeavesEvalMode(Mutant):
    """It looks at predictions, and leaves the learner in eval mode."""

    test, words = "test_criterion_changes_nothing", "learner's modes"

    def decide(self, driver: Any) -> str | None:
        driver.learner.eval()
        return super().decide(driver)


class DrawsFromTorch(Mutant):
    """It looks at samples that it draws from the global generator."""

    test, words = "test_criterion_changes_nothing", "global generators"

    def decide(self, driver: Any) -> str | None:
        torch.rand(1)
        return super().decide(driver)


class NeedsRecords(Mutant):
    """Without metrology it breaks with an error of Python's."""

    test, words = "test_run_without_metrology_goes_on_or_is_refused", "IndexError"

    def decide(self, driver: Any) -> str | None:
        assert driver.metrology_strategies[0].records
        return super().decide(driver)


class SaysTooLittle(Mutant):
    """Without metrology it refuses to work, and doesn't say why."""

    test, words = "test_run_without_metrology_goes_on_or_is_refused", "assert"

    def decide(self, driver: Any) -> str | None:
        if not driver.metrology_strategies:
            raise UsageError("no")
        return super().decide(driver)


class ForgetsItsState(Mutant):
    """What it counts isn't taken back."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "plugins.ForgetsItsState"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class LosesItsState(Mutant):
    """It ends the run at its third call, and has no state: resumed, it begins to count anew."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "What it gathers over steps belongs in state_dict"
    state_dict = load_state_dict = None  # type: ignore[assignment]

    def decide(self, driver: Any) -> str | None:
        return "three calls are enough" if self.calls == 3 and self.samples < 100 else None


class StartsItsWindowAnew(LosesItsState):
    """It ends the run when the last two of its calls were alike, and forgets the one before."""

    def decide(self, driver: Any) -> str | None:
        self.seen = [*getattr(self, "seen", []), len(driver.train_datapool) // 4]
        return "no news" if self.samples < 100 and len(self.seen) > 1 and self.seen[-1] == self.seen[-2] else None


MUTANTS: list[Any] = [*Mutant.__subclasses__(), StartsItsWindowAnew]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(StopCriterionContract, MUTANTS)
