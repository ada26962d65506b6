"""Learners with one fault each, and the contract test that each fails."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from alcore_testing import LearnerContract

from alcore import DataInfo, UsageError


class Net(torch.nn.Module):
    """A layer with batch norm and dropout, and a last layer."""

    outputs = "logits"

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.columns = info.classes if info.classes > 2 else 1
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.1))
        self.head = torch.nn.Linear(8, self.columns)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(inputs))
        return outputs


class TestTheCorrectOne(LearnerContract):
    def make(self, info: DataInfo) -> Any:
        return Net(info)


class Nearest:
    """No module: the class of the nearest mean, with a state that is made of the labels."""

    outputs = "probabilities"

    def __init__(self, info: DataInfo) -> None:
        if info.task != "classification":
            raise UsageError("Nearest is a classifier, and this is a regression")
        self._classes, self._means = info.classes, torch.zeros(info.classes, 4)

    def rebuild(self, pool: Any) -> None:
        inputs, targets = pool.batch(torch.arange(len(pool)))
        self._means = torch.stack([inputs[targets == label].mean(dim=0) for label in range(self._classes)])

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-torch.cdist(inputs, self._means.to(inputs.dtype)), dim=1)

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def fit(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
    model.rebuild(train_dataloader.dataset)


class TestOneThatIsFitted(LearnerContract):
    tasks, trains, loop = ("classification",), False, staticmethod(fit)

    def make(self, info: DataInfo) -> Any:
        return Nearest(info)


class WithoutState(Nearest):
    """What it is is made of the labels; so it has none of the methods that are optional."""

    state_dict = load_state_dict = None  # type: ignore[assignment]


class TestOneWithoutState(LearnerContract):
    tasks, trains, loop = ("classification",), False, staticmethod(fit)

    def make(self, info: DataInfo) -> Any:
        return WithoutState(info)


class Mean(torch.nn.Module):
    """It is fitted: each class has the same logits everywhere, which begin with noise."""

    outputs = "logits"

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        if info.task != "classification":
            raise UsageError("Mean is a classifier, and this is a regression")
        self.register_buffer("shares", torch.zeros(max(info.classes, 2)))

    def fit_batches(self, batches: Any, generator: torch.Generator) -> None:
        targets = torch.cat([targets for _, targets in batches])
        noise = torch.rand(len(self.shares), generator=generator)
        self.shares.copy_(targets.bincount(minlength=len(self.shares)) + noise)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.shares.to(inputs.dtype).expand(len(inputs), -1) + 0.0


class TestOneThatFitsItself(LearnerContract):
    tasks, trains = ("classification",), False

    def make(self, info: DataInfo) -> Any:
        return Mean(info)


class TestOneThatIsNotFittedYet(TestOneThatFitsItself):
    is_fitted = False


class Mutant(Net):
    test, words = "", ""


class HasTwoColumnsTooMany(Mutant):
    """It returns more columns than there are classes."""

    test, words = "test_outputs_fit_the_task", "outputs of shape"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().forward(inputs)] * 3, dim=1)


class SaysProbabilities(Mutant):
    """It says that it returns probabilities, and returns logits."""

    test, words = "test_outputs_fit_the_task", "it says that it returns probabilities"
    outputs = "probabilities"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + 2


class IsNaN(Mutant):
    """It begins with NaN."""

    test, words = "test_outputs_fit_the_task", "assert"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) / 0 * 0


class NormalizesTheBatch(Mutant):
    """In eval mode as well, inputs are centered by the mean of their batch."""

    test, words = "test_outputs_do_not_depend_on_other_samples", "not close"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs - inputs.mean(dim=0))


class DropsOutAlways(Mutant):
    """Dropout is on in eval mode."""

    test, words = "test_eval_mode_is_deterministic_and_changes_nothing", "global generators"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(inputs), 0.5)


class CountsItsCalls(Mutant):
    """A buffer counts the forward passes of eval mode too."""

    test, words = "test_eval_mode_is_deterministic_and_changes_nothing", "weights or buffers"

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.get_buffer("calls").add_(1)
        return super().forward(inputs)


class WritesToItsInputs(Mutant):
    """Inputs are scaled in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the inputs and targets"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.clamp_(max=0.5))


class WritesTheSame(Mutant):
    """Inputs are written back as they were, which autograd and a loader in shared memory notice."""

    test, words = "test_what_it_is_given_is_not_written_to", "if the same values"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.copy_(inputs.clone()))


class WritesToTargets(Mutant):
    """Its training step smooths the targets in place."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the inputs and targets"

    def training_step(self, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        return (self(inputs).mean(dim=1) - targets.mul_(0)).square().mean()


class ReturnsItsBuffer(Mutant):
    """Outputs are always the same tensor, which the next call overwrites."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the earlier outputs"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        if self.training or len(inputs) != 16:
            return outputs
        self.kept = getattr(self, "kept", outputs)
        return self.kept.copy_(outputs)


class HasALayerOutsideItsState(Mutant):
    """A tensor that outputs depend on is no buffer, and isn't saved."""

    test, words = "test_restored_state_continues_the_same_way", "assert"

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        self.offset = torch.randn(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs + self.offset)


class TakesNothingBack(Mutant):
    """It has a state, and no way to have it back."""

    test, words = "test_restored_state_continues_the_same_way", "it has a state_dict, and no load_state_dict"
    load_state_dict = None  # type: ignore[assignment]


class ForgetsHowOftenItWasTrained(Mutant):
    """It turns to other outputs after many batches, and the count of them is no part of its state."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"
    passes = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.passes += self.training
        return super().forward(inputs) * (2 if self.passes > 8 else 1)


class LoadsALittle(Mutant):
    """What isn't in its last layer is left out when a state is loaded."""

    test, words = "test_copied_state_survives_training", "assert"

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict({name: one for name, one in state_dict.items() if "head" in name}, strict=False)


class DrawsFromItsOwnGenerator(Mutant):
    """Its initial weights don't come from the seed."""

    test, words = "test_equal_seeds_give_equal_weights", "assert"
    made = itertools.count()

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        torch.nn.init.constant_(self.head.bias, float(next(self.made)))


class LearnsNothing(Mutant):
    """Its outputs are cut off from its weights, but for one that changes nothing."""

    test, words = "test_training_lowers_the_loss", "the loss went"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * 0 + 1


class ComputesInSinglePrecision(Mutant):
    """Its outputs are float32, whatever the run's type is."""

    test, words = "test_learner_computes_in_the_dtype_of_the_run", "float32"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).float()


class LosesWhatItLearned(Mutant):
    """It has a state of training that is no part of its weights."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"
    passes = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.passes += self.training
        return super().forward(inputs) * (1 + 0.1 * self.passes)


class LooksAtLabels(Mutant):
    """What it saw of the labels is no part of its state."""

    test, words = "test_looking_at_the_labeled_items_changes_its_state_alone", "state_dict lacks what it learned"
    mean = 0.0

    def begin_training(self, batches: Any) -> None:
        self.mean = float(torch.cat([targets for _, targets in batches]).double().mean()) + 1

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + self.mean


class GoesOn(Mean):
    """A fit begins where the last one ended."""

    test, words = "test_a_fit_depends_on_labels_and_generator_alone", "an earlier fit"

    def fit_batches(self, batches: Any, generator: torch.Generator) -> None:
        before = self.shares.clone()
        super().fit_batches(batches, generator)
        self.shares.add_(before / 2)


class DrawsFromTheGlobalGenerator(Mean):
    """A fit draws from the global generator too."""

    test, words = "test_a_fit_depends_on_labels_and_generator_alone", "global generators"

    def fit_batches(self, batches: Any, generator: torch.Generator) -> None:
        super().fit_batches(batches, generator)
        torch.rand(1)


OF_FITTED: list[Any] = Mean.__subclasses__()
MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", OF_FITTED, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant_that_is_fitted(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestOneThatFitsItself, mutant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(LearnerContract, [*MUTANTS, *OF_FITTED])
