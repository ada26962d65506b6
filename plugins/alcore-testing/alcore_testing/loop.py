"""The contract of training loops."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from alcore.errors import AlcoreError, Interrupted, UsageError
from alcore.inference import model_digest
from alcore.randomness import preserve_rng_state, seed_everything
from alcore.store import Run
from alcore_testing.contract import Contract, requires
from alcore_testing.drivers import LATE, STEPS, ToyDriver, assert_same_run, build_driver, prepare
from alcore_testing.plain import same
from alcore_testing.toys import DTYPES, toy_loss
from alcore_testing.watch import Unwritten, untouched

BATCHES, EPOCHS = 4, 3


class TrainingLoopContract(Contract):
    """What every loop promises that trains by gradients.

    Override ``make(**parameters)``, and say what is claimed: `name`, `plain`, `one_loss`. A loop that needs an
    optimizer of its own kind overrides ``optimizer(parameters)`` too.

    Examples
    --------
    >>> class TestMyLoop(TrainingLoopContract):
    ...     name = "mine"
    ...     def make(self, **parameters):
    ...         return MyLoop(**parameters)
    """

    kind = "loop"

    plain: ClassVar[bool] = True
    """Forward, backward and step are all it does to the weights: no clipping, averaging or mixed precision."""

    one_loss: ClassVar[bool] = True
    """The loss of each batch is computed once. False where a step needs it several times, as in sharpness-aware
    minimization, or in a line search."""

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Return an optimizer for a small problem."""
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.5)

    def problem(self, dtype: torch.dtype = torch.float32) -> Problem:
        """Return a fresh problem, always the same one."""
        return Problem(dtype, self.optimizer)

    def train(self, problem: Problem, epochs: int = EPOCHS, **arguments: Any) -> None:
        """Train a problem, with the arguments that the Driver would give."""
        given = {
            "optimizer": problem.optimizer,
            "train_dataloader": problem.batches,
            "validation_dataloader": None,
            "train_step_fn": problem.loss,
            "validate_step_fn": None,
            "lr_scheduler": None,
            "device": torch.device("cpu"),
            "dtype": torch.float32,
            "on_epoch_end": problem.on_epoch_end,
        }
        loop = self.make()
        if callable(getattr(loop, "attach", None)):
            prepare(build_driver(Path("unused"), loop=loop))
        loop(problem.model, max_epochs=epochs, **{**given, **arguments})

    def test_each_batch_is_one_step(self) -> None:
        """The optimizer steps once for each batch of each epoch, in the loader's order, by one loss (`one_loss`)."""
        problem = self.problem()
        self.train(problem)
        assert problem.steps == BATCHES * EPOCHS
        seen = problem.seen if self.one_loss else [one for one, _ in itertools.groupby(problem.seen)]
        assert seen == list(range(BATCHES)) * EPOCHS, f"losses were computed of the batches {problem.seen}"
        assert self.one_loss or len(seen) < len(problem.seen), "each batch has one loss; leave out one_loss = False"

    def test_gradients_do_not_add_up(self) -> None:
        """When a batch's loss is computed, no gradient of an earlier batch is left."""
        problem = self.problem()
        self.train(problem)
        assert not any(problem.stale), "gradients of an earlier batch are still there"

    @requires("plain")
    def test_weights_equal_those_of_a_loop_by_hand(self) -> None:
        """Weights and running statistics are those of forward, backward, step, written out."""
        problem, by_hand = self.problem(), self.problem()
        self.train(problem)
        by_hand.train(EPOCHS)
        _assert_close(problem.model, by_hand.model)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_batches_are_not_written_to(self, dtype: torch.dtype) -> None:
        """Batches of training and validation come back to the bit: a loader may give the same ones in each epoch."""
        problem, unwritten = self.problem(dtype), Unwritten()
        unwritten.given("batches", (problem.batches, problem.held_out))
        validation: dict[str, Any] = {"validation_dataloader": problem.held_out, "validate_step_fn": problem.validate}
        self.train(problem, dtype=dtype, **validation)
        unwritten.check()

    def test_on_epoch_end_is_called_after_each_epoch(self) -> None:
        """``on_epoch_end(epoch, metrics)`` is called after each epoch, from 0, with finite numbers by name."""
        problem = self.problem()
        self.train(problem)
        assert [epoch for epoch, _, _ in problem.ended] == list(range(EPOCHS))
        assert [steps for _, _, steps in problem.ended] == [BATCHES * (epoch + 1) for epoch in range(EPOCHS)]
        for _, metrics, _ in problem.ended:
            for name, value in metrics.items():
                assert isinstance(name, str)
                assert isinstance(value, float), f"{name} is a {type(value).__name__}, not a float"
                assert abs(value) < float("inf")

    @pytest.mark.parametrize("epochs", [0, 1])
    def test_max_epochs_is_kept(self, epochs: int) -> None:
        """With ``max_epochs=0`` nothing is trained, with 1 each batch once."""
        problem = self.problem()
        before = model_digest(problem.model)
        self.train(problem, epochs)
        assert problem.steps == BATCHES * epochs
        assert len(problem.ended) == epochs
        assert (model_digest(problem.model) == before) == (epochs == 0)

    def test_losses_are_computed_in_train_mode(self) -> None:
        """Every loss is computed in train mode and with gradients, even after a validation."""
        problem = self.problem()
        problem.model.eval()
        self.train(problem, validation_dataloader=problem.held_out, validate_step_fn=problem.validate)
        assert set(problem.modes) == {(True, True)}

    def test_validation_changes_no_weights(self) -> None:
        """Validation runs in eval mode without gradients, after each epoch, and leaves no trace in the weights."""
        problem, without = self.problem(), self.problem()
        self.train(problem, validation_dataloader=problem.held_out, validate_step_fn=problem.validate)
        self.train(without)
        assert set(problem.validation_modes) == {(False, False)}
        assert len(problem.validation_modes) == EPOCHS * len(problem.held_out)
        assert model_digest(problem.model) == model_digest(without.model)

    def test_validation_without_step_is_skipped_or_refused(self) -> None:
        """Held-out batches and no way to validate on them: they are left out, or a UsageError says so."""
        problem = self.problem()
        try:
            self.train(problem, validation_dataloader=problem.held_out)
        except UsageError:
            assert not problem.ended
        else:
            assert len(problem.ended) == EPOCHS

    def test_scheduler_steps_once_an_epoch_or_a_batch(self) -> None:
        """A scheduler takes one step an epoch, or one a batch, and none more."""
        problem = self.problem()
        scheduler = StepLR(problem.optimizer, 1, 0.9)
        self.train(problem, lr_scheduler=scheduler)
        assert scheduler.last_epoch in (EPOCHS, EPOCHS * BATCHES)

    def test_plateau_scheduler_is_given_a_loss(self) -> None:
        """``ReduceLROnPlateau`` is given the loss, or the validation loss; or it is refused."""
        problem = self.problem()
        scheduler = ReduceLROnPlateau(problem.optimizer)
        try:
            self.train(problem, lr_scheduler=scheduler)
        except UsageError:
            assert not problem.steps, "refused, but only after it had trained"
        else:
            assert scheduler.last_epoch in (EPOCHS, EPOCHS * BATCHES)
            assert 0 < scheduler.best < float("inf")

    def test_learner_is_usable_after_training(self) -> None:
        """The same module with the same parameters comes out: nothing is wrapped, hooked, frozen or left in a mode."""
        problem = self.problem()
        before = {name: id(one) for name, one in problem.model.named_parameters()}
        with untouched(generators=False):
            self.train(problem, validation_dataloader=problem.held_out, validate_step_fn=problem.validate)
        assert {name: id(one) for name, one in problem.model.named_parameters()} == before
        assert all(parameter.requires_grad for parameter in problem.model.parameters())
        hooked = [module for module in problem.model.modules() if module._forward_hooks or module._forward_pre_hooks]
        assert not hooked, f"hooks are left behind on {hooked}"
        loss = problem.loss(problem.model, problem.batches[0])
        loss.backward()  # type: ignore[no-untyped-call]
        assert bool(torch.isfinite(loss))

    def test_nan_loss_is_an_error(self) -> None:
        """A loss that is NaN is an error, not a learner of NaN that is measured and queried as if nothing was."""
        problem = self.problem()
        inputs, number = problem.batches[1]
        problem.batches[1] = (torch.full_like(inputs, torch.nan), number)
        with pytest.raises(AlcoreError):
            self.train(problem)
        assert not problem.ended, "an epoch with a NaN loss was announced as done"

    def test_training_step_of_the_learner_is_used(self) -> None:
        """Without a ``train_step_fn``, ``model.training_step(batch)`` gives the loss."""
        problem, other = self.problem(), self.problem()
        problem.model.training_step = lambda batch: problem.loss(problem.model, batch)  # type: ignore[assignment]
        self.train(problem, train_step_fn=None)
        self.train(other)
        assert model_digest(problem.model) == model_digest(other.model)

    def test_without_optimizer_weights_stay(self) -> None:
        """Without an optimizer, which is how the Driver says so, the learner stays as it is or is refused."""
        problem = self.problem()
        before = model_digest(problem.model)
        with contextlib.suppress(UsageError):
            self.train(problem, 1, optimizer=None)
        assert model_digest(problem.model) == before

    def test_errors_and_interruptions_are_raised(self) -> None:
        """What a step raises ends the training at once; so does an interruption."""
        for error in (ZeroDivisionError, Interrupted):
            problem = self.problem()
            problem.raises_at = (5, error)
            with pytest.raises(error):
                self.train(problem)
            assert problem.steps == 5

    def test_run_resumed_inside_training_equals_uninterrupted_run(self, tmp_path: Path) -> None:
        """Interrupted in a later epoch and resumed from the one before, a run ends with the same bytes.

        Its steps have the same losses and numbers of epochs on record.
        """
        with preserve_rng_state():
            settings: dict[str, Any] = {"epochs": EPOCHS, "max_active_learning_steps": STEPS, "batch_size": 3}
            settings |= {"model_checkpoint_frequency": 1, "pool": None}
            seed_everything(0)
            whole = self._run_driver(tmp_path / "whole", **settings)
            whole.run(toy_loss)
            seed_everything(0)
            cut = self._run_driver(tmp_path / "cut", **settings)

            def done() -> list[dict[str, Any]]:
                return Run(cut.log_dir).checkpoints()

            def cut_off(model: Any, batch: Any) -> torch.Tensor:
                if (LATE, "training", 1) in [
                    (checkpoint["step"], checkpoint["phase"], checkpoint["epoch"]) for checkpoint in done()
                ]:
                    cut.interrupt()  # in the second epoch of a late step
                return toy_loss(model, batch)

            with pytest.raises(Interrupted):
                cut.run(cut_off)
            resumed = self._run_driver(tmp_path / "cut", run_id=cut.run_id, **settings)
            resumed.restore()
            resumed.run(toy_loss)
        steps = [Run(driver.log_dir).steps() for driver in (whole, resumed)]
        for there, here in zip(*steps, strict=True):
            for name in ("epochs", "losses"):
                assert same(here.get(name), there.get(name)), (
                    f"resumed, step {here['step']} has {name} {here.get(name)} on record, not {there.get(name)}"
                )
        assert_same_run(resumed, whole)

    def _run_driver(self, folder: Path, **settings: Any) -> ToyDriver:
        return build_driver(folder, loop=self.make(), **settings)

    def test_attach_and_check_change_nothing(self, tmp_path: Path) -> None:
        """If it has ``attach(context)`` or ``check()``, they leave learner, pools and generators as they were."""
        loop = self.make()
        driver = prepare(build_driver(tmp_path, loop=loop))
        with untouched(driver):
            if callable(getattr(loop, "attach", None)):
                loop.attach(driver)
            if callable(getattr(loop, "check", None)):
                loop.check()


class Problem:
    """A learner with batch norm, four batches, and notes of everything that a loop does with them."""

    def __init__(self, dtype: torch.dtype, make_optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
        draw = torch.Generator().manual_seed(4)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = torch.nn.Sequential(
                torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
            )
        self.model.to(dtype)
        drawn = [torch.randn(5, 3, generator=draw).to(dtype) for _ in range(BATCHES + 2)]
        self.batches = [(inputs, torch.tensor(number)) for number, inputs in enumerate(drawn[:BATCHES])]
        self.held_out = [(inputs + 2, torch.tensor(0)) for inputs in drawn[BATCHES:]]
        self.optimizer = make_optimizer(self.model.parameters())
        self.optimizer.register_step_post_hook(lambda *_: self._count())
        self.steps = 0
        self.seen: list[int] = []
        self.stale: list[bool] = []
        self.modes: list[tuple[bool, bool]] = []
        self.validation_modes: list[tuple[bool, bool]] = []
        self.ended: list[tuple[int, dict[str, Any], int]] = []
        self.raises_at: tuple[int, type[BaseException]] | None = None

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """Return the loss of a batch, and note what state it found."""
        inputs, number = batch
        if self.raises_at is not None and self.steps == self.raises_at[0]:
            raise self.raises_at[1]("as the test wants")
        self.seen.append(int(number))
        self.modes.append((all(module.training for module in model.modules()), torch.is_grad_enabled()))
        self.stale.append(
            any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
        )
        return functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))

    def validate(self, model: Any, batch: Any) -> torch.Tensor:
        """Return the loss of a held-out batch, and note what state it found."""
        inputs, _ = batch
        self.validation_modes.append((any(module.training for module in model.modules()), torch.is_grad_enabled()))
        return functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))

    def on_epoch_end(self, epoch: int, metrics: Any) -> None:
        """Note the end of an epoch."""
        self.ended.append((epoch, dict(metrics), self.steps))

    def train(self, epochs: int) -> None:
        """Train in the plainest way."""
        self.model.train()
        for _ in range(epochs):
            for batch in self.batches:
                self.optimizer.zero_grad()
                self.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()

    def _count(self) -> None:
        self.steps += 1


def _assert_close(one: torch.nn.Module, other: torch.nn.Module) -> None:
    theirs = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.allclose(value, theirs[name], rtol=1e-4, atol=1e-6), f"{name} is not what a loop by hand gives"
