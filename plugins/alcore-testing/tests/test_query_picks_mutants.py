"""Strategies that choose wrongly, one fault each: the query contract fails each in the test that is aimed at it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, QueryContract, ToyQuery
from alcore_testing.query import QueryPicks


class TestTheCorrectOne(QueryContract):
    outputs, tasks = ALL_OUTPUTS, ALL_TASKS

    def make(self, **parameters: Any) -> Any:
        return ToyQuery(**parameters)


class Mutant(ToyQuery):
    """Asks for the candidates with the lowest ids, as `ToyQuery` does; each mutant overrides one thing."""

    test, words = "", ""

    def all(self) -> torch.Tensor:
        return torch.cat([torch.empty(0, dtype=torch.int64), *self.driver.candidates()])

    def chosen(self) -> list[int]:
        found: list[int] = self.all()[: self.wanted].tolist()
        return found

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        query_queue.put_many(self.chosen())


class AsksTwice(Mutant):
    """One sample stands twice among the picks."""

    test, words = "test_rounds_empty_the_pool", "asked for already"

    def chosen(self) -> list[int]:
        picks = super().chosen()
        return [*picks[:-1], *picks[:1]]


class AsksForLabeled(Mutant):
    """It looks at all samples, labeled or not."""

    test, words = "test_rounds_empty_the_pool", "not an unlabeled sample"

    def all(self) -> torch.Tensor:
        return torch.arange(self.driver.choice_pool.total)


class OneTooFew(Mutant):
    """An off-by-one leaves out the last pick."""

    test, words = "test_rounds_empty_the_pool", "6 of 34 in step 0"

    def chosen(self) -> list[int]:
        return super().chosen()[: max(self.wanted - 1, 0)]


class OneTooMany(Mutant):
    """An off-by-one adds a pick."""

    test, words = "test_rounds_empty_the_pool", "8 of 34 in step 0"

    def chosen(self) -> list[int]:
        return self.all()[: self.wanted + 1].tolist() if self.wanted else []


class PositionsForIds(Mutant):
    """It puts places among the candidates, not their ids."""

    test, words = "test_wanting_too_many_picks_all", "not an unlabeled sample"

    def chosen(self) -> list[int]:
        return list(range(len(super().chosen())))


class OutsideThePool(Mutant):
    """Ids are counted from 1."""

    test, words = "test_wanting_too_many_picks_all", "not an unlabeled sample"

    def chosen(self) -> list[int]:
        return [pick + 1 for pick in super().chosen()]


class OnlyTheFirstBlock(Mutant):
    """It looks at the first few candidates and forgets the rest."""

    test, words = "test_wanting_too_many_picks_all", "assert"

    def all(self) -> torch.Tensor:
        return super().all()[:16]


class ForgetsWhatIsMasked(Mutant):
    """It asks the pool, which doesn't know what was requested."""

    test, words = "test_requested_samples_are_not_picked_again", "asked for already"

    def all(self) -> torch.Tensor:
        ids: torch.Tensor = self.driver.choice_pool.unlabeled_indices()
        return ids


class BreaksOnAnEmptyPool(Mutant):
    """It joins a list of blocks that may be empty."""

    test, words = "test_empty_pool_gives_no_picks", "non-empty list"

    def all(self) -> torch.Tensor:
        return torch.cat(list(self.driver.candidates()))


class BreaksOnOneCandidate(Mutant):
    """It squeezes away the axis of samples."""

    test, words = "test_only_candidate_is_picked", "TypeError"

    def chosen(self) -> list[int]:
        return list(self.all()[: self.wanted].squeeze().tolist())


class TakesZeroForUnset(Mutant):
    """``max_samples or 10``."""

    test, words = "test_max_samples_of_zero_gives_no_picks", "assert [0, 2"

    def __init__(self, max_samples: int = 10) -> None:
        super().__init__(max_samples or 10)


class TakesAnyNumber(Mutant):
    """A negative number of samples is taken as it is."""

    test, words = "test_negative_max_samples_is_refused", "DID NOT RAISE"

    def __init__(self, max_samples: int = 10) -> None:
        self.max_samples = max_samples


class IgnoresItsShare(Mutant):
    """It asks for its own number, whatever its share of the step."""

    test, words = "test_share_of_a_step_takes_the_place_of_max_samples", "more than its share"

    def chosen(self) -> list[int]:
        return self.all()[: self.max_samples].tolist()


class IgnoresALargerShare(Mutant):
    """It keeps to its own number where its share is larger."""

    test, words = "test_share_of_a_step_takes_the_place_of_max_samples", "== 5"

    def chosen(self) -> list[int]:
        return super().chosen()[: self.max_samples]


class ForgetsTheOthers(Mutant):
    """It lists the candidates once and for all, so that those the strategy before it took are among them."""

    test, words = "test_two_strategies_of_a_step_pick_different_samples", "asked for already"

    def check(self) -> None:
        self._listed = super().all()

    def all(self) -> torch.Tensor:
        return self._listed


class ChoosesFromTheTrainingPool(Mutant):
    """It doesn't know that the pool to choose from may be another one."""

    test, words = "test_separate_pool_is_chosen_from", "not an unlabeled sample"

    def all(self) -> torch.Tensor:
        ids: torch.Tensor = self.driver.train_datapool.unlabeled_indices()
        return ids


class DropsDuplicates(Mutant):
    """Of equal samples it looks at one."""

    test, words = "test_duplicated_samples_are_different_picks", "== 20"

    def all(self) -> torch.Tensor:
        ids, seen, kept = super().all(), set(), []
        for sample, row in zip(ids.tolist(), self.driver.choice_pool.inputs(ids), strict=True):
            if tuple(row.tolist()) not in seen:
                seen.add(tuple(row.tolist()))
                kept.append(sample)
        return torch.tensor(kept)


class BreaksTiesBackwards(Mutant):
    """Of equal samples the highest ids come first."""

    test, words = "test_ties_are_broken_by_id", "by ascending id"

    def all(self) -> torch.Tensor:
        ids = super().all()
        scores = self.driver.choice_pool.inputs(ids).sum(dim=1)
        return ids.flip(0)[scores.flip(0).sort(descending=True, stable=True).indices]


class NeedsALabelInSecret(Mutant):
    """It looks at the labeled samples, and there may be none."""

    test, words = "test_pool_without_labels_gives_picks_or_is_refused", "Error"

    def chosen(self) -> list[int]:
        assert self.driver.train_datapool[0]
        return super().chosen()


class NeedsAnArgument(Mutant):
    """An argument of the run that nobody has to give is needed."""

    test, words = "test_arguments_of_the_run_are_accepted", "TypeError"

    def sample(self, query_queue: Any, *, scale: float) -> None:
        query_queue.put_many(self.chosen())


class CannotBeInterrupted(Mutant):
    """It works through the pool without coming to a safe point."""

    test, words = "test_interruption_ends_the_choice", "DID NOT RAISE"

    def all(self) -> torch.Tensor:
        return self.driver.choice_pool.unlabeled_indices()


class FindsOutTooLate(Mutant):
    """That a pool can't be chosen from is found out after training."""

    test, words = "test_pool_that_lists_nothing_is_refused", "exists"

    def check(self) -> None:
        pass


MUTANTS = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryPicks, MUTANTS)
