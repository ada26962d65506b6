"""Strategies that forget what is pending, one fault each, and the contract test that each fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alcore_testing.query import QueryPending

from alcore import SetQuery
from alcore.inference import Features


class Farthest(SetQuery):
    """Ask for the sample farthest from what is labeled, pending and chosen, again and again."""

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        centers = torch.cat([labeled.features, *self.counted(pending)])
        picks: list[int] = []
        for _ in range(n):
            near = torch.cdist(candidates.features, centers).amin(dim=1)
            near[picks] = -1
            picks.append(int(near.argmax()))
            centers = torch.cat([centers, candidates.features[picks[-1:]]])
        return torch.tensor(picks)

    def counted(self, pending: Features | None) -> list[torch.Tensor]:
        return [] if pending is None else [pending.features]


class TestFarthest(QueryPending):
    def make(self, **parameters: Any) -> Any:
        return Farthest(**parameters)


class First(SetQuery):
    """Ask for the highest values of a feature, for twins in one batch too; it isn't told what is pending."""

    def choose(self, candidates: Features, labeled: Features, n: int) -> Any:
        return candidates.features[:, 0].topk(n).indices


class Dense(Farthest):
    """Ask for samples that are far from what is chosen, and that have many like them among the candidates."""

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        between = torch.cdist(candidates.features, candidates.features)
        density = (1 / (0.01 + between)).mean(dim=1)
        centers = torch.cat([labeled.features, *self.counted(pending)])
        picks: list[int] = []
        for _ in range(n):
            scores = density * torch.cdist(candidates.features, centers).amin(dim=1)
            scores[picks] = -1
            picks.append(int(scores.argmax()))
            centers = torch.cat([centers, candidates.features[picks[-1:]]])
        return torch.tensor(picks)


class TestOneThatWeighsDensity(QueryPending):
    def make(self, **parameters: Any) -> Any:
        return Dense(**parameters)


class Apart(SetQuery):
    """Ask for the samples farthest from what is pending, for twins in one batch too."""

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        centers = torch.cat([labeled.features, *([] if pending is None else [pending.features])])
        return torch.cdist(candidates.features, centers).amin(dim=1).topk(n).indices


class TestOneThatAvoidsTwinsBetweenBatchesAlone(QueryPending):
    def make(self, **parameters: Any) -> Any:
        return Apart(**parameters)


class TestOneThatDoesNotAvoidTwins(QueryPending):
    def make(self, **parameters: Any) -> Any:
        return First(**parameters)


class Drawn(Farthest):
    """Ask for a random sample, and then for the farthest."""

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        first = torch.randint(len(candidates.ids), (1,), generator=self.generator())
        return super().choose(candidates, labeled, n, pending) if n > 1 or pending is None else first


class TestOneThatDraws(QueryPending):
    seeded = True

    def make(self, **parameters: Any) -> Any:
        return Drawn(**parameters)


class Mutant(Farthest):
    test, words = "test_pending_samples_count_as_chosen", "in the step before, and is still to be labeled"


class LooksAtLabelsAlone(Mutant):
    """It has the argument, and looks at labels alone."""

    def counted(self, pending: Features | None) -> list[torch.Tensor]:
        return []


class LeavesOutOne(Mutant):
    """An off-by-one leaves out the last pending sample."""

    def counted(self, pending: Features | None) -> list[torch.Tensor]:
        return [] if pending is None else [pending.features[:-1]]


class RemembersItsOwnPicks(Mutant):
    """It counts what it asked for itself, and not what other strategies did."""

    test, words = "test_picks_of_other_strategies_count_as_chosen", "by another strategy of this step"

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        ids = [] if pending is None else pending.ids.tolist()
        own = torch.tensor([sample in getattr(self, "own", ()) for sample in ids], dtype=torch.bool)
        mine = None if pending is None else pending.take(own)
        picks = super().choose(candidates, labeled, n, mine)
        self.own = [*getattr(self, "own", ()), *candidates.ids[picks].tolist()]
        return picks


class WeighsDensityAlone(Dense):
    """It ignores what is pending. The copy of a pending sample has lost its like, so that density alone avoids it."""

    test, words = "test_copies_of_what_it_would_choose_count_as_chosen", "a copy of which was asked for"

    def counted(self, pending: Features | None) -> list[torch.Tensor]:
        return []


class HasTheArgumentAlone(First):
    """It has the argument and never looks at it."""

    test, words = (
        "test_copies_of_what_it_would_choose_count_as_chosen",
        "and doesn't look at the features or outputs in it",
    )

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Any:
        return super().choose(candidates, labeled, n)


MUTANTS: list[Any] = [*Mutant.__subclasses__(), WeighsDensityAlone, HasTheArgumentAlone]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestFarthest, mutant)


def test_density_alone_hides_that_pending_samples_are_ignored(check_mutant: Any) -> None:
    with pytest.raises(AssertionError, match="WeighsDensityAlone passes"):
        check_mutant(
            TestFarthest, type("WeighsDensityAlone", (WeighsDensityAlone,), {"test": Mutant.test, "__doc__": "x"})
        )


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryPending, MUTANTS)
