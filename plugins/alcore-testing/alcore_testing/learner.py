"""The contract of learners."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from alcore import DataInfo, Driver, Phase, TensorPool, UsageError
from alcore.inference import model_digest, model_state, place_learner
from alcore.outputs import evaluating, kind_of
from alcore.training import FittingLoop, resolve_train_step
from alcore_testing.contract import Contract, requires
from alcore_testing.drivers import LATE, assert_same_run, build_driver, whole_and_resumed
from alcore_testing.toys import DTYPES, toy_loop
from alcore_testing.watch import Unwritten, untouched

TASKS = ("two-classes", "three-classes", "regression")


class LearnerContract(Contract):
    """What every learner promises, an `nn.Module` or an object that behaves like one.

    Override ``make(info)``, and say what is claimed: `name`, `tasks`, `shape`, `trains`.

    Examples
    --------
    >>> class TestMyLearner(LearnerContract):
    ...     name = "mine"
    ...     def make(self, info):
    ...         return MyLearner(info.features, info.classes)
    """

    kind = "learner"

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")
    """What it can learn; what is not claimed must be refused where it is made."""
    shape: ClassVar[tuple[int, ...]] = (4,)
    """Shape of one input."""
    trains: ClassVar[bool] = True
    """It has parameters that an optimizer trains."""
    is_fitted: ClassVar[bool] = True
    """A learner with ``fit_batches`` is looked at as it is after a fit; False: as it is before."""
    loop: ClassVar[Any] = staticmethod(toy_loop)
    """The training loop of the runs in this contract; a learner with ``fit_batches`` has one."""

    def make(self, *args: Any, **parameters: Any) -> Any:
        """Return a fresh learner; it is called as ``make(info)``, with the `DataInfo` of the data."""
        raise NotImplementedError(f"{type(self).__name__} must define make(info) -> a learner")

    def one(self) -> Any:
        """Return a fresh learner for the first task."""
        return self.made(self.first_task())

    def made(self, task: str, seed: int = 0) -> Any:
        """Return a fresh learner with initial weights drawn from a seed; one that is fitted, not trained, is fitted."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            learner = self.make(info_of(task, self.shape))
        if _fits(learner) and self.is_fitted:
            learner.fit_batches(_batches(task, self.shape), torch.Generator().manual_seed(seed))
        elif callable(getattr(learner, "rebuild", None)):
            learner.rebuild(pool_of(task, self.shape))
        return learner

    def first_task(self) -> str:
        """Return the task that most tests use."""
        return "two-classes" if "classification" in self.tasks else "regression"

    @pytest.mark.parametrize("task", TASKS)
    def test_outputs_fit_the_task(self, task: str) -> None:
        """Outputs are finite fractions of a shape that fits the data; a task that isn't claimed is refused."""
        if info_of(task, self.shape).task not in self.tasks:
            with pytest.raises(UsageError):
                self.made(task)
            return
        learner, inputs = self.made(task), pool_of(task, self.shape).inputs(torch.arange(7))
        outputs = _infer(learner, inputs)
        allowed: dict[str, list[tuple[int, ...]]] = {
            "two-classes": [(7,), (7, 1), (7, 2)],
            "three-classes": [(7, 3)],
            "regression": [(7, 2)] if self._predicts_variances(learner, task) else [(7,), (7, 1)],
        }
        shape = tuple(outputs.shape[1:] if outputs.dim() == 3 else outputs.shape)
        assert shape in allowed[task], f"outputs of shape {tuple(outputs.shape)} for 7 samples of {task}"
        assert outputs.is_floating_point()
        assert bool(torch.isfinite(outputs).all())
        if self._predicts_variances(learner, task):
            assert bool((outputs[..., 1] > 0).all()), "it says that it returns variances"
        if task != "regression" and kind_of(learner) == "probabilities":
            assert bool(((outputs >= 0) & (outputs <= 1)).all()), "it says that it returns probabilities"
            if shape[1:] not in ((), (1,)):
                torch.testing.assert_close(outputs.sum(-1), torch.ones_like(outputs.sum(-1)))

    def _predicts_variances(self, learner: Any, task: str) -> bool:
        return task == "regression" and kind_of(learner, "regression") == "mean-variance"

    def test_outputs_do_not_depend_on_other_samples(self) -> None:
        """In eval mode the outputs of a sample are the same alone and among others."""
        learner, inputs = self.one(), pool_of(self.first_task(), self.shape).inputs(torch.arange(9))
        whole = _infer(learner, inputs)
        axis = 1 if whole.dim() == 3 else 0
        alone = torch.cat([_infer(learner, inputs[place : place + 1]) for place in range(9)], dim=axis)
        torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)

    def test_eval_mode_is_deterministic_and_changes_nothing(self) -> None:
        """In eval mode the same inputs give the same outputs; neither weights nor generators change."""
        learner, inputs = self.one(), pool_of(self.first_task(), self.shape).inputs(torch.arange(9))
        digest = model_digest(learner)
        with untouched():
            first = _infer(learner, inputs)
            again = _infer(learner, inputs)
        assert torch.equal(first, again)
        assert model_digest(learner) == digest, "it changed its weights or buffers"

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_what_it_is_given_is_not_written_to(self, dtype: torch.dtype) -> None:
        """Inputs, targets and earlier outputs come back to the bit: in eval and train mode, and of each step it has."""
        for task in (name for name in TASKS if info_of(name, self.shape).task in self.tasks):
            learner, pool, unwritten = self.made(task), pool_of(task, self.shape), Unwritten()
            learner = place_learner(learner, torch.device("cpu"), dtype)
            inputs, targets = pool.batch(torch.arange(16))
            targets = targets.to(dtype) if targets.is_floating_point() else targets
            batch = unwritten.given("inputs and targets", (inputs.to(dtype), targets))
            unwritten.given("earlier outputs", _infer(learner, batch[0]))
            unwritten.given("earlier outputs", _infer(learner, batch[0].neg()))
            for name in ("features", "validation_step"):
                if callable(own := getattr(learner, name, None)):
                    with evaluating(learner):
                        own(batch[0] if name == "features" else batch)
            if self.trains:
                learner.train()
                with torch.random.fork_rng():
                    loss = resolve_train_step(None, learner, pool.info)(learner, batch)
                loss.backward()  # type: ignore[no-untyped-call]
            if callable(getattr(learner, "rebuild", None)):
                unwritten.watch_pool(pool)
                learner.rebuild(pool)
            unwritten.check()

    def test_restored_state_continues_the_same_way(self) -> None:
        """``state_dict`` gives a learner that began with other weights the same outputs."""
        task = self.first_task()
        learner, other = self.made(task), self.made(task, seed=1)
        if self.trains:
            self._train(learner, task, 2)
        inputs = pool_of(task, self.shape).inputs(torch.arange(9))
        _restore(other, copy.deepcopy(model_state(learner)))
        if callable(getattr(other, "rebuild", None)):
            other.rebuild(pool_of(task, self.shape))
        assert torch.equal(_infer(other, inputs), _infer(learner, inputs))
        assert model_digest(other) == model_digest(learner)

    def test_copied_state_survives_training(self) -> None:
        """A copy of the state holds the initial weights for `reset_learner`, whatever is trained afterwards."""
        task = self.first_task()
        learner = self.made(task)
        inputs = pool_of(task, self.shape).inputs(torch.arange(9))
        before, kept = _infer(learner, inputs), copy.deepcopy(model_state(learner))
        if self.trains:
            self._train(learner, task, 2)
            assert not torch.equal(_infer(learner, inputs), before)
        _restore(learner, kept)
        assert torch.equal(_infer(learner, inputs), before)

    def test_equal_seeds_give_equal_weights(self) -> None:
        """Made twice after ``torch.manual_seed(0)``, it begins with the same weights."""
        task = self.first_task()
        assert model_digest(self.made(task)) == model_digest(self.made(task))

    @requires("trains")
    @pytest.mark.parametrize("task", TASKS)
    def test_training_lowers_the_loss(self, task: str) -> None:
        """A few epochs with its own training step, or the default loss of the task, bring the loss down."""
        if info_of(task, self.shape).task not in self.tasks:
            return
        learner = self.made(task)
        losses = self._train(learner, task, 30)
        assert losses[-1] < losses[0], f"the loss went from {losses[0]} to {losses[-1]}"

    @requires("trains")
    def test_learner_computes_in_the_dtype_of_the_run(self) -> None:
        """Moved to float64, as the Driver does with ``dtype``, it computes in float64."""
        task = self.first_task()
        learner = self.made(task).to(torch.float64)
        inputs = pool_of(task, self.shape).inputs(torch.arange(5)).double()
        assert _infer(learner, inputs).dtype == torch.float64

    @requires("trains")
    def test_looking_at_the_labeled_items_changes_its_state_alone(self) -> None:
        """If it has ``begin_training``: equal items give equal states, which `state_dict` holds; items don't change."""
        for task in self._tasks_of_runs():
            one, other = self.made(task), self.made(task)
            if not callable(getattr(one, "begin_training", None)):
                return
            pool = pool_of(task, self.shape)
            batches = [pool.batch(part) for part in torch.split(torch.arange(len(pool)), 16)]
            kept = copy.deepcopy(batches)
            with untouched():
                one.begin_training(batches)
            other.begin_training([pool.batch(torch.arange(len(pool)))])
            assert all(map(torch.equal, (x for pair in batches for x in pair), (x for pair in kept for x in pair)))
            fresh, inputs = self.made(task, seed=1), pool.inputs(torch.arange(9))
            _restore(fresh, copy.deepcopy(model_state(one)))
            torch.testing.assert_close(_infer(other, inputs), _infer(one, inputs))
            assert torch.equal(_infer(fresh, inputs), _infer(one, inputs)), "state_dict lacks what it learned of them"

    def test_a_fit_depends_on_labels_and_generator_alone(self) -> None:
        """If it has ``fit_batches``: an earlier fit doesn't matter, and it draws from its generator alone."""
        for task in self._tasks_of_runs():
            learner = self.made(task)
            if not _fits(learner):
                return
            other = self._made_for_a_run(task)
            other.fit_batches(_batches(task, self.shape)[:2], torch.Generator().manual_seed(1))
            with torch.random.fork_rng(), untouched():
                learner.fit_batches(_batches(task, self.shape), torch.Generator().manual_seed(2))
            other.fit_batches(_batches(task, self.shape), torch.Generator().manual_seed(2))
            assert model_digest(other) == model_digest(learner), "an earlier fit, or its first weights, matter"

    @pytest.mark.parametrize(
        ("reset", "step"), [(False, LATE - 1), (True, 1)], ids=["goes on", "reset before each step"]
    )
    def test_resumed_run_equals_uninterrupted_run(self, tmp_path: Path, reset: bool, step: int) -> None:
        """A run that was interrupted and resumed ends with the same weights and requests as one that was not.

        It is reset where it has ``state_dict`` and ``load_state_dict``, which ``reset_learner`` needs.
        """
        for task in self._tasks_of_runs():

            def build(folder: Path, *, task: str = task, **settings: Any) -> Driver:
                parts = {"pool": pool_of(task, self.shape, range(8)), "learner": self._made_for_a_run(task)}
                steps: dict[str, Any] = {
                    "max_active_learning_steps": step + 1,
                    "batch_size": 9,
                }  # no batch of one sample is left over
                loop = FittingLoop() if _fits(parts["learner"]) else type(self).loop
                driver = build_driver(folder, loop=loop, **steps, **parts, **settings)
                assert driver.training_config is not None
                driver.training_config.reset_learner = reset and _can_be_reset(driver.learner)
                return driver

            whole, resumed = whole_and_resumed(build, tmp_path / task, step, Phase.LABELING)
            assert_same_run(resumed, whole)

    def _tasks_of_runs(self) -> list[str]:
        """Return one task of each kind that it claims."""
        named = {"classification": "two-classes", "regression": "regression"}
        return [named[task] for task in self.tasks]

    def _made_for_a_run(self, task: str) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make(info_of(task, self.shape))

    def _train(self, learner: Any, task: str, epochs: int) -> list[float]:
        """Train on a toy pool; return the losses."""
        pool, batches = pool_of(task, self.shape), _batches(task, self.shape)
        losses: list[float] = []
        if callable(getattr(learner, "begin_training", None)):
            learner.begin_training(batches)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            toy_loop(
                learner,
                torch.optim.Adam(learner.parameters(), lr=0.01),
                batches,
                epochs,
                train_step_fn=resolve_train_step(None, learner, pool.info),
                on_epoch_end=lambda _, metrics: losses.append(metrics["loss"]),
            )
        return losses


def info_of(task: str, shape: tuple[int, ...]) -> DataInfo:
    """Return what a learner is told of a toy problem."""
    features = shape[0] if len(shape) == 1 else 0
    if task == "regression":
        return DataInfo("regression", 0, features, shape)
    return DataInfo("classification", 2 if task == "two-classes" else 3, features, shape)


def pool_of(task: str, shape: tuple[int, ...], labeled: Any = range(48)) -> TensorPool:
    """Return a toy problem of any input shape; all samples are labeled where it isn't said otherwise."""
    info = info_of(task, shape)
    inputs = torch.randn(48, *shape, generator=torch.Generator().manual_seed(3))
    targets = inputs.flatten(1).mean(dim=1)
    if task != "regression":
        targets = torch.arange(48) % info.classes
        inputs += targets.reshape(-1, *[1] * len(shape))
    return TensorPool(inputs, targets, labeled=labeled, info=info)


def _batches(task: str, shape: tuple[int, ...]) -> list[Any]:
    pool = pool_of(task, shape)
    return [pool.batch(part) for part in torch.split(torch.arange(len(pool)), 16)]


def _fits(learner: Any) -> bool:
    return callable(getattr(learner, "fit_batches", None))


def _can_be_reset(learner: Any) -> bool:
    return all(callable(getattr(learner, name, None)) for name in ("state_dict", "load_state_dict"))


def _restore(learner: Any, state: dict[str, Any]) -> None:
    """Give a learner back its state; one whose state is empty need not have ``load_state_dict``."""
    if not state and not callable(getattr(learner, "load_state_dict", None)):
        return
    assert callable(getattr(learner, "load_state_dict", None)), "it has a state_dict, and no load_state_dict"
    learner.load_state_dict(state)


def _infer(learner: Any, inputs: torch.Tensor) -> torch.Tensor:
    with evaluating(learner):
        outputs: torch.Tensor = learner(inputs)
    return outputs
