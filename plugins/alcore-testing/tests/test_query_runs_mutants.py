"""Strategies whose picks depend on the wrong things, one fault each, and the contract test that each fails."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, QueryContract
from alcore_testing.query import QueryRuns

from alcore import BaseQuery
from alcore.inference import TopK
from alcore.randomness import derive_generator
from alcore.store import Run


class Drawn(BaseQuery):
    """Draws a key for each candidate; every third step it draws two, so that it has a state."""

    def __init__(self, max_samples: int = 10) -> None:
        self.set_max_samples(max_samples)
        self.calls = 0

    def check(self) -> None:
        next(self.driver.candidates(1), None)

    def keys(self, ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(len(ids), generator=generator, dtype=torch.float64)

    def draw(self) -> torch.Generator:
        return self.generator(str(self.calls))

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        chosen, generator = TopK(self.wanted), self.draw()
        for ids in self.driver.candidates():
            chosen.add(ids, self.keys(ids, generator))
        self.calls += 1
        query_queue.put_many(chosen.result().ids.tolist())

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


class TestTheDrawnOnes(QueryContract):
    outputs, tasks, seeded = ALL_OUTPUTS, ALL_TASKS, True

    def make(self, **parameters: Any) -> Any:
        return Drawn(**parameters)


class Mutant(Drawn):
    test, words = "", ""


class DrawsFromPython(Mutant):
    """It draws from Python's global generator and puts it back, so that only the picks tell."""

    test, words = "test_picks_do_not_depend_on_global_generators", "assert"

    def draw(self) -> torch.Generator:
        state = random.getstate()
        seed = random.randrange(2**31)
        random.setstate(state)
        return derive_generator(seed)


class CountsItsObjects(Mutant):
    """How often the process made one before decides what it draws."""

    test, words = "test_same_seed_gives_same_picks", "assert"
    made = 0

    def draw(self) -> torch.Generator:
        CountsItsObjects.made += 1
        return derive_generator(self.made)


class IgnoresTheSeed(Mutant):
    """Its generator has a seed of its own."""

    test, words = "test_seed_and_step_decide_random_picks", "don't depend on the seed"

    def draw(self) -> torch.Generator:
        return derive_generator(42, self.driver.active_learning_step_idx)


class IgnoresTheStep(Mutant):
    """Each step draws the same numbers."""

    test, words = "test_seed_and_step_decide_random_picks", "don't depend on the step"

    def draw(self) -> torch.Generator:
        return derive_generator(int(self.driver.config.seed or 0))


class DrawsInSecret(Mutant):
    """It says that it draws nothing."""

    test, words = "test_seed_and_step_decide_random_picks", "say seeded = True"
    claims: ClassVar[dict[str, Any]] = {"seeded": False}


class PeeksAtAnswers(Mutant):
    """It asks for samples of the second class first, whose answers stand in the pool."""

    test, words = "test_picks_do_not_depend_on_hidden_answers", "answers that nobody has given yet"

    def keys(self, ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        answers = [float(self.driver.choice_pool.answer(sample)[1]) == 1 for sample in ids.tolist()]
        return super().keys(ids, generator) + torch.tensor(answers)


class PeeksInSecret(Mutant):
    """It says that it looks up answers, and doesn't."""

    test, words = "test_picks_do_not_depend_on_hidden_answers", "and looks_up_answers says so"
    claims: ClassVar[dict[str, Any]] = {"looks_up_answers": True}


class ForgetsItsState(Mutant):
    """What it counts isn't saved."""

    test, words = "test_restored_state_continues_the_same_way", "asks for other samples"

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class DriftsSlowly(Mutant):
    """From its ninth call on it prefers high ids more and more, and it has no state."""

    test, words = "test_restored_state_continues_the_same_way", "asks for other samples"
    state_dict = load_state_dict = None  # type: ignore[assignment]

    def keys(self, ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return super().keys(ids, generator) + max(0, self.calls - 7) * ids

    def draw(self) -> torch.Generator:
        return self.generator()


class DriftsInARun(DriftsSlowly):
    """From its sixth call on it prefers high ids, which a resumed run doesn't."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"

    def keys(self, ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return super().keys(ids, generator) + (self.calls > 5) * ids


class LoadsNothing(Mutant):
    """What it counts is saved, and not taken back."""

    test, words = "test_restored_state_continues_the_same_way", "assert"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class HasAStateThatCantBeStored(Mutant):
    """Its state holds an object that would have to be pickled."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "EncodingError"

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls, "generator": self.draw()}


class IsLostInAResumedRun(Mutant):
    """Its state comes back only where it was asked for nothing yet."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"] if state["calls"] > 1 else 0


class CountsWhatIsLabeledNow(Mutant):
    """Its draws depend on how many requests have labels as the database is now, not as it was in this step."""

    test, words = "test_resumed_run_whose_labels_are_late_equals_uninterrupted_run", "asked for other samples"

    def draw(self) -> torch.Generator:
        folder = self.driver.log_dir
        states = [request["state"] for request in Run(folder).requests()] if folder.exists() else []
        return self.generator(str(states.count("labeled")))


MUTANTS: list[Any] = [*Mutant.__subclasses__(), DriftsInARun]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheDrawnOnes, mutant, **getattr(mutant, "claims", {}))


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryRuns, MUTANTS)
