"""What the training loop is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alcore.config import OptimizerConfig, TrainingConfig
from alcore.distributed.ranks import Ranks
from alcore.protocols import DataInfo
from alcore.training.class_balance import ClassBalance
from alcore.training.loader import LoaderFactory
from alcore.training.trainer import Trainer


class Spy:
    """A loop that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        self.calls.append(
            {"optimizer": optimizer, "train_dataloader": train_dataloader, "max_epochs": max_epochs, **kwargs}
        )


def trainer(toys: Any, loop: Any, learner: Any = None, **config: Any) -> Trainer:
    given: dict[str, Any] = {
        "train_datapool": toys.pool(), "max_training_epochs": 5,
        "optimizer_config": OptimizerConfig(torch.optim.SGD, {"lr": 0.1}), **config,
    }  # fmt: skip
    training = TrainingConfig(**given)
    cpu = torch.device("cpu")
    made = Trainer(
        loop,
        learner or toys.learner(),
        training,
        LoaderFactory(
            batch_size=4, drop_last=False, collate_fn=None, workers=0, device=cpu, dtype=torch.float32,
            before_batch=lambda: None,
        ),
        ClassBalance(training.train_datapool, None, None, lambda message: None),
        device=cpu,
        dtype=torch.float32,
        fine_tuning_lr=0.01,
        reset_optim_states=True,
        ranks=Ranks(),
        manager=None,
    )  # fmt: skip
    made.make_optimization()
    return made


def train(of: Trainer, step: int = 0, *, epochs_done: int = 0, finished: bool = False, **steps: Any) -> None:
    of.train(
        step,
        DataInfo("classification", 2),
        seed=3,
        epochs_done=epochs_done,
        finished=finished,
        train_step_fn=steps.get("train_step_fn"),
        validate_step_fn=None,
        on_epoch_end=lambda epoch, metrics: None,
    )


def test_loop_gets_every_argument_of_the_protocol(toys: Any) -> None:
    spy = Spy()
    train(trainer(toys, spy, val_datapool=toys.pool(labeled=6)))
    (call,) = spy.calls
    assert set(call) == {
        "optimizer", "train_dataloader", "max_epochs", "validation_dataloader", "train_step_fn", "validate_step_fn",
        "lr_scheduler", "device", "dtype", "on_epoch_end", "validation_asked_for",
    }  # fmt: skip
    assert [len(batch[1]) for batch in call["validation_dataloader"]] == [4, 2]


def test_loop_that_takes_no_train_step_fn_is_called_without_it(toys: Any) -> None:
    seen = []

    def fit(model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int) -> None:
        seen.append(max_epochs)

    train(trainer(toys, fit))
    assert seen == [5]


def test_epochs_and_rate_of_later_trainings_are_those_of_fine_tuning(toys: Any) -> None:
    spy = Spy()
    of = trainer(toys, spy, max_fine_tuning_epochs=2)
    for step in (3, 4):  # the first training was in step 3
        train(of, step)
    assert [call["max_epochs"] for call in spy.calls] == [5, 2]
    assert [call["optimizer"].param_groups[0]["lr"] for call in spy.calls] == [0.1, 0.01]
    assert of.first_step == 3


def orders(loader: Any, epochs: int) -> list[list[float]]:
    return [[float(value) for batch in loader for value in batch[0][:, 0]] for _ in range(epochs)]


def test_resumed_training_has_the_epochs_that_are_left(toys: Any) -> None:
    spy = Spy()
    of = trainer(toys, spy)
    train(of)
    train(of, epochs_done=3)
    whole, rest = spy.calls
    assert rest["max_epochs"] == 2
    assert orders(rest["train_dataloader"], 2) == orders(whole["train_dataloader"], 5)[3:]


@pytest.mark.parametrize(
    ("state", "called"),
    [
        ({"epochs_done": 0}, True),
        ({"epochs_done": 4}, True),
        ({"epochs_done": 5}, False),
        ({"epochs_done": 2, "finished": True}, False),
    ],
    ids=str,
)
def test_loop_is_not_called_where_its_training_was_over(toys: Any, state: dict[str, Any], called: bool) -> None:
    spy = Spy()
    train(trainer(toys, spy), **state)
    assert bool(spy.calls) == called


def test_loop_is_called_for_no_epochs_where_the_config_says_so(toys: Any) -> None:
    spy = Spy()
    train(trainer(toys, spy, max_training_epochs=0))
    assert [call["max_epochs"] for call in spy.calls] == [0]


def test_order_of_batches_depends_on_seed_and_step(toys: Any) -> None:
    spy = Spy()
    of = trainer(toys, spy)
    for step in (0, 1):
        train(of, step)
    again = Spy()
    train(trainer(toys, again), 1)
    first, second, repeated = (orders(call["train_dataloader"], 2) for call in [*spy.calls, *again.calls])
    assert first != second == repeated


def test_learner_without_parameters_gets_no_optimizer(toys: Any) -> None:
    spy = Spy()

    def learner(inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    train(trainer(toys, spy, learner), train_step_fn=lambda model, batch: torch.zeros(()))
    assert spy.calls[0]["optimizer"] is spy.calls[0]["lr_scheduler"] is None


Loop = Callable[..., Any]


def test_restored_optimizer_is_that_of_the_training_under_way(toys: Any) -> None:
    spy = Spy()
    of = trainer(toys, spy)
    train(of, 0)
    state = {"optimizer": spy.calls[0]["optimizer"].state_dict(), "scheduler": None}
    state["optimizer"]["param_groups"][0]["lr"] = 0.5
    for inside, rate in ((True, 0.5), (False, 0.1)):
        fresh, spy_again = trainer(toys, again := Spy()), again
        fresh.restore(0, 0, state, inside=inside)
        train(fresh, 0)
        assert spy_again.calls[0]["optimizer"].param_groups[0]["lr"] == rate


class Looking(torch.nn.Module):
    """Keeps what it saw of the labeled items when a training began."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen: list[tuple[int, bool]] = []
        self.register_buffer("total", torch.zeros(()))

    def begin_training(self, batches: Any) -> None:
        self.seen.append((sum(len(targets) for _, targets in batches), bool(self.total)))
        self.total += 1

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs)  # type: ignore[no-any-return]


@pytest.mark.parametrize("reset", [False, True])
def test_learner_looks_at_all_labeled_items_when_a_training_begins(toys: Any, reset: bool) -> None:
    learner, pool = Looking(), toys.pool(labeled=6)
    of = trainer(toys, Spy(), learner, train_datapool=pool, reset_learner=reset)
    train(of, 0)
    pool.append(20)
    train(of, 1)
    assert learner.seen == [(6, False), (7, not reset)]


@pytest.mark.parametrize("state", [{"epochs_done": 2}, {"epochs_done": 5}, {"finished": True}], ids=str)
def test_learner_does_not_look_again_when_a_training_is_resumed(toys: Any, state: dict[str, Any]) -> None:
    learner = Looking()
    train(trainer(toys, Spy(), learner), **state)
    assert learner.seen == []


def test_learner_without_a_state_has_nothing_to_be_reset(toys: Any) -> None:
    spy = Spy()
    of = trainer(toys, spy, lambda inputs: inputs, reset_learner=True)
    for step in (0, 1):
        train(of, step, train_step_fn=lambda model, batch: torch.zeros(()))
    assert len(spy.calls) == 2
