"""Strategies whose picks are not those of their definition, one fault each; the oracle's test of the contract fails."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from alcore_testing import assert_best_first
from alcore_testing.query import QueryOracle

from alcore import SetQuery
from alcore.inference import Features, extract_features, labeled_features


class Farthest(SetQuery):
    """Ask for the sample farthest from what is labeled and chosen, again and again."""

    def choose(self, candidates: Features, labeled: Features, n: int) -> Any:
        rows, centers = self.rows(candidates.features), self.centers(labeled)
        picks: list[int] = []
        scores: list[float] = []
        for _ in range(n):
            near = torch.cdist(rows, centers, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
            near[picks] = -1
            picks.append(int(near.argmax()))
            scores.append(float(near[picks[-1]]))
            centers = self.extended(centers, rows[picks[-1]])
        return self.answer(picks, scores)

    def rows(self, features: torch.Tensor) -> torch.Tensor:
        return features.double()

    def centers(self, labeled: Features) -> torch.Tensor:
        return labeled.features.double()

    def extended(self, centers: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return torch.cat([centers, row[None]])

    def answer(self, picks: list[int], scores: list[float]) -> Any:
        return torch.tensor(picks), torch.tensor(scores, dtype=torch.float64)


class TestFarthest(QueryOracle):
    def make(self, **parameters: Any) -> Any:
        return Farthest(**parameters)

    def oracle(self, driver: Any, candidates: Any, asked: Any) -> None:
        features = extract_features(driver, torch.tensor(candidates)).features.tolist()
        rows, centers = dict(zip(candidates, features, strict=True)), labeled_features(driver).features.tolist()
        for request in asked:
            assert_best_first(
                [request], {other: min(math.dist(row, center) for center in centers) for other, row in rows.items()}
            )
            centers.append(rows.pop(request.sample))


class Mutant(Farthest):
    test, words = "test_picks_are_those_of_the_oracle", "pick 0 is sample"


class PicksAreNoCenters(Mutant):
    """What was chosen doesn't count for the next pick."""

    def extended(self, centers: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        del row
        return centers


class LeavesOutALabel(Mutant):
    """An off-by-one leaves out the sample that was labeled last."""

    def centers(self, labeled: Features) -> torch.Tensor:
        return labeled.features.double()[:-1]


class ShrinksWhatItReads(Mutant):
    """Each time it reads features in double precision, they get smaller, along the first axis."""

    words = "of sample"

    def rows(self, features: torch.Tensor) -> torch.Tensor:
        rows = features.double()
        rows[:, 0].mul_(0.1)
        return rows


class AsksInReverse(Mutant):
    """The right samples, the last one first."""

    def answer(self, picks: list[int], scores: list[float]) -> Any:
        return super().answer(picks[::-1], scores[::-1])


class GivesSquares(Mutant):
    """Scores are squared distances."""

    words = "of sample"

    def answer(self, picks: list[int], scores: list[float]) -> Any:
        return super().answer(picks, [score**2 for score in scores])


class ForgetsAPick(Mutant):
    """One sample is chosen twice, so that there is one less."""

    words = "it asked for"

    def answer(self, picks: list[int], scores: list[float]) -> Any:
        return super().answer([*picks[:-1], *picks[:1]], scores)


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestFarthest, mutant)


def test_expected_ids_are_compared_in_their_order(check_mutant: Any) -> None:
    class Claimed(TestFarthest):
        def oracle(self, driver: Any, candidates: Any, asked: Any) -> list[int]:  # type: ignore[override]
            return [request.sample for request in asked][::-1]

    with pytest.raises(AssertionError, match="has_no_fault passes"):
        check_mutant(TestFarthest, _has_no_fault)
    check_mutant(Claimed, _HasTheWrongOrder)


class _HasTheWrongOrder(Farthest):
    """Its picks are not in the expected order."""

    test, words = "test_picks_are_those_of_the_oracle", ", not for ["


def _has_no_fault(**parameters: Any) -> Farthest:
    """It is right."""
    return Farthest(**parameters)


_has_no_fault.test, _has_no_fault.words = Mutant.test, ""  # type: ignore[attr-defined]


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryOracle, MUTANTS)
