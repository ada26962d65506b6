"""What a Driver refuses before anything is trained, bought or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import alcore
from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.training.steps import check_loop

Build = Callable[..., Driver]


def one(batch: Any) -> torch.Tensor:
    """Stand for a function that takes too few arguments."""
    return torch.zeros(())


class Loop:
    """A training loop that can be called, and does nothing."""

    def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int) -> None: ...


def narrow_loop(model: Any, train_dataloader: Any, max_epochs: int) -> None:
    """Stand for a loop that takes no optimizer."""


def wide_loop(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, teacher: Any) -> None:
    """Stand for a loop that needs more than it is given."""


def optimizer(**kwargs: Any) -> c.OptimizerConfig:
    return c.OptimizerConfig(torch.optim.SGD, **kwargs)


def refused(build: Build, *, run: dict[str, Any] | None = None, **settings: Any) -> str:
    """Return the error of a Driver with these settings, which must come before the run directory is there."""
    made: list[Driver] = []

    def start() -> None:
        made.append(build(**settings))
        made[0].run(**(run or {}))

    with pytest.raises(UsageError) as error:
        start()
    assert not any(driver.log_dir.exists() for driver in made)
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inference_fn": 3}, "inference_fn is a int; it must be callable as inference_fn(learner, inputs)"),
        ({"inference_fn": one}, "inference_fn is one, which can't be called as inference_fn(learner, inputs)"),
        ({"collate_fn": lambda: None}, "DriverConfig.collate_fn(items)"),
        ({"sampler": one}, "TrainingConfig.sampler(pool, generator)"),
        ({"train_loop_fn": narrow_loop}, "the training loop narrow_loop can't be called as loop(model, optimizer="),
        ({"train_loop_fn": wide_loop}, "'teacher'"),
        ({"run": {"train_step_fn": one}}, "train_step_fn is one, which can't be called as train_step_fn(model, batch)"),
        ({"run": {"train_step_fn": 3}}, "train_step_fn is a int"),
        ({"run": {"validate_step_fn": one}}, "validate_step_fn is one, which can't be called"),
        ({"run": {"validate_step_fn": lambda model, batch: None}}, "no validation pool to call it on"),
        ({"plugins": Loop()}, "plugins is a Loop; it must be a list"),
        ({"val_datapool": 3}, "val_datapool int has no __len__ and no __getitem__"),
        ({"val_datapool": []}, "the validation pool has no item to measure on"),
        ({"unlabeled_datapool": 3}, "unlabeled_datapool int has no __len__"),
        ({"optimizer_config": optimizer(optimizer_kwargs={"lr": 0.1, "momentun": 1})}, "'momentun'"),
        ({"optimizer_config": optimizer(optimizer_kwargs={"lr": 0.1, "momentum": -1})}, "momentum"),
        (
            {"optimizer_config": optimizer(scheduler_cls=torch.optim.lr_scheduler.StepLR)},
            "OptimizerConfig: StepLR does not take {}",
        ),
        ({"query_strategies": []}, "there are no query strategies, so that the label strategy would never be asked"),
        (
            {"query_strategies": [], "label_strategy": None, "max_active_learning_steps": None},
            "there are no query strategies, so that nothing would end the run",
        ),
        ({"learner": lambda inputs: inputs, "reset_learner": True}, "has no state_dict and no load_state_dict"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else ",".join(value),
)  # fmt: skip
def test_what_can_not_work_is_refused_before_the_run_directory_is_made(
    build: Build, settings: dict[str, Any], message: str
) -> None:
    assert message in refused(build, **settings)


def test_class_in_place_of_an_object_is_refused(build: Build, toys: Any) -> None:
    parts = {
        "learner": torch.nn.Identity,
        "train_datapool": TensorPool,
        "val_datapool": TensorPool,
        "unlabeled_datapool": TensorPool,
        "query_strategies": [toys.FirstQuery],
        "start_strategy": toys.FirstQuery,
        "label_strategy": toys.EchoLabel,
        "metrology_strategies": [toys.CountMetrology],
        "train_loop_fn": Loop,
    }
    for name, part in parts.items():
        cls = part[0] if isinstance(part, list) else part
        assert f"is the class {cls.__name__}; give an object of it: {cls.__name__}(" in refused(build, **{name: part})


def test_runs_without_query_strategies_that_are_meant(build: Build, toys: Any) -> None:
    for settings in ({"label_strategy": None}, {"skip_labeling": True}):
        driver = build(query_strategies=[], **settings)
        driver.run()
        assert driver.stop_reason == "all 3 steps are done"
    driver = build(query_strategies=[], train_datapool=toys.pool(labeled=0), start_strategy=toys.FirstQuery(6))
    driver.run()
    assert len(driver.train_datapool) == 6


def test_validation_step_is_not_asked_about_where_nothing_is_trained(build: Build) -> None:
    driver = build(skip_training=True)
    driver.run(validate_step_fn=lambda model, batch: None)
    assert driver.stop_reason == "all 3 steps are done"


def test_validation_step_is_refused_in_a_step_and_a_resumed_run_too(build: Build) -> None:
    build(run_id="one").run()
    driver = build(run_id="one", max_active_learning_steps=4)
    driver.restore()
    with pytest.raises(UsageError, match="no validation pool"):
        driver.run(validate_step_fn=lambda model, batch: None)
    driver = build(run_id="two")
    with driver.session(), pytest.raises(UsageError, match="no validation pool"):
        driver.active_learning_step(validate_step_fn=lambda model, batch: None)


def test_optimizer_is_tried_out_on_the_parameters_of_the_learner_and_changes_nothing(build: Build, toys: Any) -> None:
    def frozen(parameters: Any, **_: Any) -> Any:
        raise ValueError(f"{len(list(parameters))} parameters are too many")

    config = c.OptimizerConfig(frozen)
    assert "frozen does not take {'lr': 0.0001}: 2 parameters are too many" in refused(build, optimizer_config=config)
    learner = toys.learner()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    build(learner=learner).prepare()
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("loop", [Loop(), lambda model, **_: None, max], ids=range(3))
def test_loop_that_takes_what_it_is_given_passes_and_one_without_a_signature_too(loop: Any) -> None:
    check_loop(loop)


def test_stop_criterion_is_enough_to_end_a_run_without_query_strategies(build: Build) -> None:
    class Soon:
        @alcore.runhook
        def alcore_should_stop(self, driver: Any) -> str | None:
            return "soon" if driver.active_learning_step_idx else None

    driver = build(query_strategies=[], label_strategy=None, max_active_learning_steps=None, plugins=[Soon()])
    driver.run()
    assert driver.stop_reason == "soon"
