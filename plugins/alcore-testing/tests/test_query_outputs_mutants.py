"""Strategies that misread outputs, one fault each: the query contract fails each in the test that is aimed at it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alcore_testing import QueryContract
from alcore_testing.query import QueryOutputs

from alcore import PointwiseQuery, UsageError
from alcore.errors import QueryError
from alcore.outputs import class_probabilities, kind_of


class Gini(PointwiseQuery):
    """Ask for the samples with the highest Gini impurity, 1 less the sum of squared probabilities."""

    def check(self) -> None:
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError("it ranks by class probabilities, and this is a regression")
        super().check()

    def score(self, outputs: Any) -> torch.Tensor:
        return self.gini(class_probabilities(outputs, kind_of(self.driver.learner)).double())

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        return 1 - probabilities.square().sum(dim=1)


class TestTheCorrectOne(QueryContract):
    def make(self, **parameters: Any) -> Any:
        return Gini(**parameters)


class Mutant(Gini):
    test, words = "", ""


class TakesRegression(Mutant):
    """The values of a regression are taken for logits."""

    test, words = "test_outputs_are_taken_or_refused", "DID NOT RAISE"

    def check(self) -> None:
        PointwiseQuery.check(self)


class KnowsNoFlatOutputs(Mutant):
    """Outputs of shape (B,) break it, although binary outputs are claimed."""

    test, words = "test_outputs_are_taken_or_refused", "Dimension out of range"

    def score(self, outputs: Any) -> torch.Tensor:
        return super().score(outputs) + 0 * outputs.sum(dim=1) if outputs.dim() < 3 else super().score(outputs)


class AveragesTheWrongAxis(Mutant):
    """The mean over posterior samples is taken over the samples of the pool."""

    test, words = "test_outputs_are_taken_or_refused", "for 2 samples"

    def score(self, outputs: Any) -> torch.Tensor:
        return self.gini(outputs.softmax(-1).mean(dim=1)) if outputs.dim() == 3 else super().score(outputs)


class RefusesTooLate(Mutant):
    """What it can't work with is found out when the first samples are to be chosen."""

    test, words = "test_outputs_are_taken_or_refused", "exists"

    def check(self) -> None:
        pass

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        Gini.check(self)
        super().sample(query_queue)


class FlattensMaps(Mutant):
    """Outputs with more dimensions than it knows are flattened in silence."""

    test, words = "test_outputs_are_taken_or_refused", "DID NOT RAISE"

    def score(self, outputs: Any) -> torch.Tensor:
        return super().score(outputs.flatten(1) if outputs.dim() > 3 else outputs)


class ExponentiatesLogits(Mutant):
    """A softmax written out by hand overflows."""

    test, words = "test_extreme_values_give_picks", "NaN"

    def score(self, outputs: Any) -> torch.Tensor:
        if outputs.dim() != 2 or outputs.shape[1] < 2 or kind_of(self.driver.learner) != "logits":
            return super().score(outputs)
        powers = outputs.exp()
        return self.gini(powers / powers.sum(dim=1, keepdim=True))


class TakesTheLogarithmOfZero(Mutant):
    """An entropy written out by hand is NaN where a probability is 0."""

    test, words = "test_extreme_values_give_picks", "NaN"

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        return -(probabilities * probabilities.log()).sum(dim=1)


class DividesByTheRange(Mutant):
    """Scores are brought to the range from 0 to 1, and all of them may be equal."""

    test, words = "test_extreme_values_give_picks", "NaN"

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        scores = super().gini(probabilities)
        return (scores - scores.min()) / (scores.max() - scores.min())


class SwallowsNaN(Mutant):
    """NaN counts as 0, and a sample that the learner can't judge is never asked for."""

    test, words = "test_nan_outputs_are_refused_by_sample_id", "nobody is told"

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        return super().gini(probabilities).nan_to_num(0.0)


class NamesNobody(Mutant):
    """NaN is refused without saying which sample it is."""

    test, words = "test_nan_outputs_are_refused_by_sample_id", "isn't named"

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        if bool(probabilities.isnan().any()):
            raise QueryError("there is a NaN")
        return super().gini(probabilities)


class ComparesWithinChunks(Mutant):
    """Scores are relative to the samples that happen to stand in the same chunk."""

    test, words = "test_picks_do_not_depend_on_chunks", "assert"

    def gini(self, probabilities: torch.Tensor) -> torch.Tensor:
        scores = super().gini(probabilities)
        return scores - scores.mean()


MUTANTS = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryOutputs, MUTANTS)
