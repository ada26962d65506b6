"""Which function computes the loss of a batch, and which arguments a training loop takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alcore.errors import UsageError
from alcore.protocols import DataInfo
from alcore.training import resolve_train_step
from alcore.training.steps import arguments_not_taken, resolve_validate_step

BATCH = (torch.ones(4, 2), torch.tensor([0, 1, 1, 0]))


class WithSteps(torch.nn.Linear):
    def training_step(self, batch: Any) -> Any:
        return ("trained", self, batch)

    def validation_step(self, batch: Any) -> Any:
        return ("validated", self, batch)


@pytest.mark.parametrize("resolve", [resolve_train_step, resolve_validate_step])
def test_a_given_step_comes_first(resolve: Callable[..., Any]) -> None:
    def step(model: Any, batch: Any) -> Any: ...

    assert resolve(step, WithSteps(1, 1), DataInfo()) is step


@pytest.mark.parametrize(
    ("resolve", "name"), [(resolve_train_step, "train_step_fn"), (resolve_validate_step, "validate_step_fn")]
)
def test_a_step_that_cannot_be_called_is_refused(resolve: Callable[..., Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is a int; it must be callable"):
        resolve(3, WithSteps(1, 1), DataInfo())


def test_then_the_learners_own_step_of_the_model_that_is_trained() -> None:
    learner, trained = WithSteps(1, 1), WithSteps(1, 1)
    assert resolve_train_step(None, learner, DataInfo())(trained, "batch") == ("trained", trained, "batch")
    assert resolve_validate_step(None, learner, None)(trained, "batch") == ("validated", trained, "batch")


def test_then_the_default_loss_of_the_task_and_the_outputs() -> None:
    learner = torch.nn.Linear(2, 1)
    for info in (DataInfo("classification", 2), DataInfo("regression")):
        assert resolve_train_step(None, learner, info)(learner, BATCH).shape == ()
        assert resolve_validate_step(None, learner, info)(learner, BATCH).shape == ()
    classes = resolve_train_step(None, learner, DataInfo("classification", 2))(learner, BATCH)
    fractions = resolve_train_step(None, learner, DataInfo("regression"))(learner, BATCH)
    assert classes != fractions
    learner.outputs = "probabilities"
    assert resolve_train_step(None, learner, DataInfo())(lambda x: x[:, 0] / 2, BATCH) == pytest.approx(
        0.6931, abs=1e-3
    )


def test_without_any_training_step_there_is_no_training() -> None:
    with pytest.raises(UsageError, match=r"no training step: pass train_step_fn.*Linear a method training_step"):
        resolve_train_step(None, torch.nn.Linear(1, 1), None)
    assert resolve_validate_step(None, torch.nn.Linear(1, 1), None) is None


def test_optional_arguments_that_a_loop_does_not_take_are_found() -> None:
    def short(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any) -> None: ...

    def some(
        model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, *, device: Any, dtype: Any
    ) -> None: ...

    def anything(model: Any, **kwargs: Any) -> None: ...

    others = {
        "validation_dataloader", "validate_step_fn", "lr_scheduler", "device", "dtype", "on_epoch_end",
        "validation_asked_for",
    }  # fmt: skip
    assert arguments_not_taken(short) == others
    assert arguments_not_taken(some) == others - {"device", "dtype"} | {"train_step_fn"}
    assert arguments_not_taken(anything) == set()
