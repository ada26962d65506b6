"""Training loops with one fault each, and the contract test that each fails."""

from __future__ import annotations

import contextlib
import math
from typing import Any, ClassVar

import pytest
import torch
from alcore_testing import TrainingLoopContract
from alcore_testing.loop import EPOCHS

from alcore.errors import DivergedError, UsageError
from alcore.outputs import evaluating


class Plain:
    """Forward, backward, step; validation and scheduler after each epoch."""

    def __call__(
        self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, *, validation_dataloader: Any = None,
        train_step_fn: Any = None, validate_step_fn: Any = None, lr_scheduler: Any = None, on_epoch_end: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        if optimizer is None:
            raise UsageError("there is nothing to train")
        step = train_step_fn or (lambda model, batch: model.training_step(batch))
        for epoch in self.epochs(max_epochs):
            model.train()
            losses = [self.batch(model, optimizer, step, batch) for batch in self.loaded(train_dataloader)]
            metrics = {"loss": self.mean(losses)}
            if validation_dataloader is not None and self.can_validate(validate_step_fn):
                self.validate(model, validation_dataloader, validate_step_fn)
            if lr_scheduler is not None:
                self.schedule(lr_scheduler, metrics)
            if on_epoch_end is not None:
                self.end(on_epoch_end, epoch, metrics)

    def epochs(self, number: int) -> Any:
        return range(number)

    def loaded(self, batches: Any) -> Any:
        return batches

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        optimizer.zero_grad()
        loss = step(model, batch)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def mean(self, losses: list[float]) -> float:
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise DivergedError(f"the loss is {mean}")
        return mean

    def validate(self, model: Any, batches: Any, step: Any) -> None:
        with evaluating(model):
            for batch in batches:
                step(model, batch)

    def can_validate(self, step: Any) -> bool:
        return step is not None

    def schedule(self, scheduler: Any, metrics: dict[str, float]) -> None:
        scheduler.step(*([metrics["loss"]] if hasattr(scheduler, "patience") else []))

    def end(self, on_epoch_end: Any, epoch: int, metrics: dict[str, float]) -> None:
        on_epoch_end(epoch, metrics)


class TestTheCorrectOne(TrainingLoopContract):
    def make(self, **parameters: Any) -> Any:
        return Plain(**parameters)


class Sharpness(Plain):
    """Sharpness-aware minimization: a step by the gradient at the worst place nearby (Foret et al. 2021)."""

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        optimizer.zero_grad()
        loss = step(model, batch)
        loss.backward()
        moved = [(parameter, 0.05 * parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        for parameter, by in moved:
            parameter.data.add_(by)
        optimizer.zero_grad()
        step(model, batch).backward()
        for parameter, by in moved:
            parameter.data.sub_(by)
        optimizer.step()
        return float(loss.detach())


class TestSharpness(TrainingLoopContract):
    plain = one_loss = False

    def make(self, **parameters: Any) -> Any:
        return Sharpness(**parameters)


class ByClosure(Plain):
    """The optimizer is given a function that computes the loss, as those with a line search need it."""

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = step(model, batch)
            loss.backward()
            return loss

        return float(optimizer.step(closure).detach())


class TestLineSearch(TrainingLoopContract):
    plain = one_loss = False

    def make(self, **parameters: Any) -> Any:
        return ByClosure(**parameters)

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=4)


class TestClosureOfOneLoss(TrainingLoopContract):
    plain = False

    def make(self, **parameters: Any) -> Any:
        return ByClosure(**parameters)


class Mutant(Plain):
    test, words = "", ""
    claims: ClassVar[dict[str, Any]] = {}


class StepsTwice(Mutant):
    """The optimizer steps twice a batch."""

    test, words = "test_each_batch_is_one_step", "== (4 * 3)"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        loss = super().batch(model, optimizer, step, batch)
        optimizer.step()
        return loss


class KeepsItsOwnOrder(Mutant):
    """Batches are gone through backwards."""

    test, words = "test_each_batch_is_one_step", "assert"

    def loaded(self, batches: Any) -> Any:
        return list(batches)[::-1]


class AddsGradientsUp(Mutant):
    """Gradients are never cleared."""

    test, words = "test_gradients_do_not_add_up", "still there"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        loss = step(model, batch)
        loss.backward()
        optimizer.step()
        return float(loss.detach())


class ClipsGradients(Mutant):
    """It clips gradients, and says that it doesn't."""

    test, words = "test_weights_equal_those_of_a_loop_by_hand", "by hand"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        optimizer.zero_grad()
        loss = step(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        return float(loss.detach())


class AddsNoiseInPlace(Mutant):
    """Inputs are disturbed where they are, and the more the longer it trains."""

    test, words = "test_batches_are_not_written_to", "wrote to the batches"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        batch[0].add_(0.01)
        return super().batch(model, optimizer, step, batch)


class CentersDoublesInPlace(Mutant):
    """Held-out inputs are centered in a copy in double precision, which is none where they are in it already."""

    test, words = "test_batches_are_not_written_to", "wrote to the batches"

    def validate(self, model: Any, batches: Any, step: Any) -> None:
        for inputs, _ in batches:
            inputs.double().sub_(0.5)
        super().validate(model, batches, step)


class CountsEpochsFromOne(Mutant):
    """The first epoch is announced as 1."""

    test, words = "test_on_epoch_end_is_called_after_each_epoch", "assert [1, 2, 3]"

    def end(self, on_epoch_end: Any, epoch: int, metrics: dict[str, float]) -> None:
        on_epoch_end(epoch + 1, metrics)


class AnnouncesTensors(Mutant):
    """Losses are announced as tensors, which hold on to the device."""

    test, words = "test_on_epoch_end_is_called_after_each_epoch", "not a float"

    def end(self, on_epoch_end: Any, epoch: int, metrics: dict[str, float]) -> None:
        on_epoch_end(epoch, {name: torch.tensor(value) for name, value in metrics.items()})


class TrainsAtLeastOnce(Mutant):
    """No epochs are one epoch."""

    test, words = "test_max_epochs_is_kept", "assert"

    def epochs(self, number: int) -> Any:
        return range(max(number, 1))


class StaysInEvalMode(Mutant):
    """After the first validation the learner is trained in eval mode."""

    test, words = "test_losses_are_computed_in_train_mode", "(False, True)"

    def validate(self, model: Any, batches: Any, step: Any) -> None:
        super().validate(model, batches, step)
        model.eval()
        model.train = lambda *_: model


class ValidatesInTrainMode(Mutant):
    """Validation is done in train mode, and batch norm learns from it."""

    test, words = "test_validation_changes_no_weights", "assert"

    def validate(self, model: Any, batches: Any, step: Any) -> None:
        with torch.no_grad():
            for batch in batches:
                step(model, batch)


class ValidatesByNothing(Mutant):
    """It goes through held-out batches although there is no step for them."""

    test, words = "test_validation_without_step_is_skipped_or_refused", "TypeError"

    def can_validate(self, step: Any) -> bool:
        return True


class NeverSchedules(Mutant):
    """The scheduler isn't stepped."""

    test, words = "test_scheduler_steps_once_an_epoch_or_a_batch", "assert 0"

    def schedule(self, scheduler: Any, metrics: dict[str, float]) -> None:
        pass


class SchedulesBlindly(Mutant):
    """A scheduler that watches a metric gets none."""

    test, words = "test_plateau_scheduler_is_given_a_loss", "TypeError"

    def schedule(self, scheduler: Any, metrics: dict[str, float]) -> None:
        scheduler.step()


class FreezesTheLearner(Mutant):
    """Afterwards no parameter needs a gradient."""

    test, words = "test_learner_is_usable_after_training", "assert"

    def end(self, on_epoch_end: Any, epoch: int, metrics: dict[str, float]) -> None:
        on_epoch_end(epoch, metrics)
        self.model.requires_grad_(epoch != 2)

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        self.model = model
        return super().batch(model, optimizer, step, batch)


class LeavesAHook(Mutant):
    """A hook that it needs is never removed."""

    test, words = "test_learner_is_usable_after_training", "hooks are left behind"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        model.register_forward_hook(lambda *_: None)
        return super().batch(model, optimizer, step, batch)


class TrainsOnNaN(Mutant):
    """NaN losses are averaged and announced as if nothing was."""

    test, words = "test_nan_loss_is_an_error", "DID NOT RAISE"

    def mean(self, losses: list[float]) -> float:
        return sum(losses) / len(losses)


class IgnoresTheLearnersStep(Mutant):
    """Without a step function it doesn't know what to do."""

    test, words = "test_training_step_of_the_learner_is_used", "KeyError"

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs["train_step_fn"] is None:
            raise KeyError("train_step_fn")
        super().__call__(*args, **kwargs)


class MakesItsOwnOptimizer(Mutant):
    """Without an optimizer it makes one, and trains what nobody wants trained."""

    test, words = "test_without_optimizer_weights_stay", "assert"

    def __call__(self, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__call__(model, optimizer or torch.optim.SGD(model.parameters(), lr=0.1), *args, **kwargs)


class SkipsFailingBatches(Mutant):
    """A batch that raises is left out."""

    test, words = "test_errors_and_interruptions_are_raised", "DID NOT RAISE"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        with contextlib.suppress(Exception):
            return super().batch(model, optimizer, step, batch)
        return 0.0


class DrawsFromAClock(Mutant):
    """It adds noise to the gradients that depends on how many batches it saw since it was made."""

    test, words = "test_run_resumed_inside_training_equals_uninterrupted_run", "on record, not"
    seen: ClassVar[int] = 0

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        self.seen += 1  # type: ignore[misc]
        optimizer.zero_grad()
        loss = step(model, batch) * (1 + 0.1 * (self.seen % 7))
        loss.backward()
        optimizer.step()
        return float(loss.detach())


class ForgetsItsCounter(Mutant):
    """It reports how many batches it has trained, by a count that begins anew after an interruption."""

    test, words = "test_run_resumed_inside_training_equals_uninterrupted_run", "has losses"
    count = 0

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        self.count += 1
        return super().batch(model, optimizer, step, batch)

    def end(self, on_epoch_end: Any, epoch: int, metrics: dict[str, float]) -> None:
        super().end(on_epoch_end, epoch, {**metrics, "batches": float(self.count)})


class AveragesOverItsLife(Mutant):
    """The loss that it reports is the mean over all epochs of its life, and the earlier ones are lost at a resume."""

    test, words = "test_run_resumed_inside_training_equals_uninterrupted_run", "has losses"

    def __init__(self) -> None:
        self.losses: list[float] = []

    def mean(self, losses: list[float]) -> float:
        self.losses += losses
        return super().mean(self.losses)


class CountsResumedEpochsAnew(Mutant):
    """It announces an epoch more than it trains after an interruption."""

    test, words = "test_run_resumed_inside_training_equals_uninterrupted_run", "epochs 4 on record"

    def epochs(self, number: int) -> Any:
        return range(number if number == EPOCHS else number + 1)


class ComputesTheLossTwice(Mutant):
    """The loss of each batch is computed twice, to be sure."""

    test, words = "test_each_batch_is_one_step", "losses were computed of the batches"

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        step(model, batch)
        return super().batch(model, optimizer, step, batch)


class SaysItNeedsMore(Mutant):
    """It computes one loss a batch, and says that it needs several."""

    test, words = "test_each_batch_is_one_step", "each batch has one loss"
    claims: ClassVar[dict[str, Any]] = {"one_loss": False}


class SkipsABatch(Mutant):
    """Of losses that it needs twice, it computes the second of another batch."""

    test, words = "test_each_batch_is_one_step", "losses were computed of the batches"
    claims: ClassVar[dict[str, Any]] = {"one_loss": False}

    def batch(self, model: Any, optimizer: Any, step: Any, batch: Any) -> float:
        step(model, (batch[0], torch.tensor((int(batch[1]) + 1) % 4)))
        return super().batch(model, optimizer, step, batch)


class DrawsWhenAttached(Mutant):
    """It draws a seed of its own from a global generator when it is attached."""

    test, words = "test_attach_and_check_change_nothing", "global generators"

    def attach(self, context: Any) -> None:
        self.seed = int(torch.randint(2**31, ()))


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    check_mutant(TestTheCorrectOne, mutant, **mutant.claims)


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(TrainingLoopContract, MUTANTS)
