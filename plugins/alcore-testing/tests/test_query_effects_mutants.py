"""Strategies that disturb others or take too much memory, one fault each, and the contract test that each fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, QueryContract, ToyQuery
from alcore_testing.query import QueryEffects

from alcore import SetQuery
from alcore.errors import QueryError
from alcore.inference import Features, chunks, extract_features


class Central(SetQuery):
    """Ask for the candidates that are nearest to the mean of all of them."""

    needs_labeled = False

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        if bool((bad := candidates.features.isnan().any(dim=1)).any()):
            raise QueryError(f"the features of samples {candidates.ids[bad].tolist()} are NaN")
        distances = (candidates.features - candidates.features.mean(dim=0)).norm(dim=1)
        return torch.sort(distances, stable=True).indices[:n]


class TestTheCentralOnes(QueryContract):
    outputs, tasks, streams = ("binary", "classes", "posterior", "values", "map"), ALL_TASKS, False

    def make(self, **parameters: Any) -> Any:
        return Central(**parameters)


class Mutant(ToyQuery):
    """Asks for the candidates with the lowest ids, as `ToyQuery` does, and does something else before."""

    test, words = "", ""

    def disturb(self) -> None:
        pass

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        self.disturb()
        super().sample(query_queue)


class LeavesTrainMode(Mutant):
    """Dropout is switched on for some forward passes, and left on."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's modes"

    def disturb(self) -> None:
        self.driver.learner.train()


class GivesAllPartsOneMode(Mutant):
    """It remembers the mode of the learner as a whole, and a frozen part comes back in train mode."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's modes"

    def disturb(self) -> None:
        training = self.driver.learner.training
        self.driver.learner.eval()
        self.driver.learner.train(training)


class TouchesWeights(Mutant):
    """Weights are perturbed in place, and the perturbation is not exactly taken back."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's weights"

    def disturb(self) -> None:
        with torch.no_grad():
            self.driver.learner.head.weight.mul_(3.0).div_(3.0)
            self.driver.learner.head.weight.add_(1e-7)


class UpdatesRunningStatistics(Mutant):
    """In train mode, batch norm learns from the candidates; the modes come back, the statistics don't."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's weights"

    def disturb(self) -> None:
        norm = self.driver.learner.body[1]
        was, norm.training = norm.training, True
        norm(torch.ones(3, 8))
        norm.training = was


class LeavesGradients(Mutant):
    """A gradient that it needs is left where the next optimizer step finds it."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's gradients"

    def disturb(self) -> None:
        with torch.enable_grad():
            self.driver.learner.head.bias.square().sum().backward()


class FreezesParameters(Mutant):
    """Parameters need no gradient while it works, nor afterwards."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's gradients"

    def disturb(self) -> None:
        self.driver.learner.requires_grad_(False)


class LeavesAHook(Mutant):
    """A hook that listens to a layer is never removed."""

    test, words = "test_learner_and_generators_stay_as_they_were", "learner's hooks"

    def disturb(self) -> None:
        self.driver.learner.head.register_forward_hook(lambda *_: None)


class DrawsFromTorch(Mutant):
    """It draws from torch's global generator."""

    test, words = "test_learner_and_generators_stay_as_they_were", "global generators"

    def disturb(self) -> None:
        torch.rand(3)


class SeedsNumpy(Mutant):
    """To be reproducible it seeds NumPy, and everybody else with it."""

    test, words = "test_learner_and_generators_stay_as_they_were", "global generators"

    def disturb(self) -> None:
        np.random.seed(0)


class SwitchesGradientsOff(Mutant):
    """``torch.set_grad_enabled(False)`` is never undone."""

    test, words = "test_learner_and_generators_stay_as_they_were", "settings of torch"

    def disturb(self) -> None:
        torch.set_grad_enabled(False)


class WritesToInputs(Mutant):
    """Inputs are scaled in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the inputs of a pool"

    def disturb(self) -> None:
        for ids in self.driver.candidates():
            self.driver.choice_pool.inputs(ids).mul_(0.5)


class WritesToIds(Mutant):
    """Ids are counted from 1 in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "that it was given"

    def disturb(self) -> None:
        for ids in self.driver.candidates():
            ids.add_(1).sub_(1)


class WritesToTargets(Mutant):
    """Targets of labeled samples are smoothed in place, in what the loader gives."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the inputs and targets of a pool"

    def disturb(self) -> None:
        for _, targets in self.driver.ordered_batches(self.driver.train_datapool):
            targets.mul_(2)


class WritesToOutputsInNumPy(Mutant):
    """Outputs are sorted in an array that shares their memory, so that torch doesn't know of it."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the outputs of the learner"

    def disturb(self) -> None:
        for _, outputs in chunks(self.driver):
            for tensor in outputs.values() if isinstance(outputs, dict) else [outputs]:
                tensor.numpy().sort(axis=0)


class KeepsAllScores(Mutant):
    """It streams the pool, and keeps a number for each sample."""

    test, words = "test_memory_does_not_grow_with_the_pool", "bytes a sample"

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        pairs = [(ids, outputs[:, 0].clone()) for ids, outputs in chunks(self.driver)]
        best = torch.topk(torch.cat([scores for _, scores in pairs]), self.wanted).indices
        query_queue.put_many(torch.cat([ids for ids, _ in pairs])[best].tolist())


class KeepsAPythonNumber(Mutant):
    """It streams the pool, and keeps a Python number for each sample, which torch doesn't know of."""

    test, words = "test_memory_does_not_grow_with_the_pool", "bytes a sample"

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        seen: list[float] = []
        for ids, outputs in chunks(self.driver):
            seen += (outputs[:, 0] + ids).tolist()
        query_queue.put_many(range(43, 83, 8) if seen else [])


class LoadsThePool(Mutant):
    """All inputs are fetched at once."""

    test, words = "test_memory_does_not_grow_with_the_pool", "bytes a sample"

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        ids = torch.cat(list(self.driver.candidates()))
        best = self.driver.choice_pool.inputs(ids).sum(dim=1).topk(self.wanted).indices
        query_queue.put_many(ids[best].tolist())


class WritesToFeatures(Central):
    """Features are centered in place, and the next strategy is given them so."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the features and outputs of"

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        candidates.features.sub_(candidates.features.mean(dim=0))
        return super().choose(candidates, labeled, n)


class ScalesDoublesInPlace(Central):
    """Features in double precision are scaled, and they are no copy where they are in it already: BADGE did this."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the features and outputs of"

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        for start in range(0, len(candidates.features), 8):
            candidates.features[start : start + 8].double().mul_(0.5)
        return super().choose(candidates, labeled, n)


class ScalesLabeledInPlace(Central):
    """Features of labeled samples are scaled by half and back, which leaves no trace in their values."""

    test, words = "test_what_it_is_given_is_not_written_to", "if the same values"
    needs_labeled = True

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        labeled.features.mul_(0.5).mul_(2)
        return super().choose(candidates, labeled, n)


class WritesToTheCache(Central):
    """It takes the features of the run by itself, and centers them where they are."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the features and outputs of"

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        features = extract_features(self.driver).features
        features.sub_(features.mean(dim=0))
        return super().choose(candidates, labeled, n)


class WritesToOutputs(Central):
    """Outputs are sorted in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "it wrote to the features and outputs of"

    def choose(self, candidates: Features, labeled: Features, n: int) -> torch.Tensor:
        candidates.outputs.copy_(candidates.outputs.sort().values)
        return super().choose(candidates, labeled, n)


MUTANTS: list[Any] = [*Mutant.__subclasses__(), *Central.__subclasses__()]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    claims = {"outputs": ALL_OUTPUTS, "tasks": ALL_TASKS} if issubclass(mutant, Mutant) else {}
    base = QueryContract if issubclass(mutant, Mutant) else TestTheCentralOnes
    with torch.enable_grad(), torch.random.fork_rng():
        check_mutant(base, mutant, **claims)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(QueryEffects, MUTANTS)
