"""Optimizers and schedulers: what each step of a run trains with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR

from alcore.config import OptimizerConfig
from alcore.training.optimizer import Optimization


def two_groups(parameters: Iterable[torch.nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    weight, bias = parameters
    return torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5}], **options)


def optimization(
    learner: torch.nn.Module,
    *,
    fine_tuning_lr: float | None = None,
    fresh: bool = True,
    reset: bool = False,
    **config: Any,
) -> Optimization:
    config = {"optimizer_cls": two_groups, "optimizer_kwargs": {"lr": 0.1, "momentum": 0.9}, **config}
    return Optimization(
        OptimizerConfig(**config), learner, fine_tuning_lr=fine_tuning_lr, fresh_each_step=fresh, reset_learner=reset
    )


def rates(of: Optimization) -> list[float]:
    assert of.optimizer is not None
    return [group["lr"] for group in of.optimizer.param_groups]


def train(of: Optimization, learner: torch.nn.Module, epochs: int = 1) -> None:
    assert of.optimizer is not None
    for _ in range(epochs):
        of.optimizer.zero_grad()
        learner(torch.ones(1, 2)).sum().backward()
        of.optimizer.step()
        if of.scheduler is not None:
            of.scheduler.step()


@pytest.mark.parametrize("fresh", [True, False])
def test_fine_tuning_reaches_every_group_from_step_1_on(fresh: bool) -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner, fine_tuning_lr=0.01, fresh=fresh)
    seen = []
    for step in range(3):
        made.prepare(step)
        train(made, learner)
        seen.append(rates(made))
    assert seen == [[0.1, 0.5], [0.01, 0.01], [0.01, 0.01]]


def test_without_fine_tuning_the_rates_are_the_configs() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner)
    for step in range(3):
        made.prepare(step)
        assert rates(made) == [0.1, 0.5]


def test_fine_tuning_at_rate_0_is_a_rate() -> None:
    made = optimization(torch.nn.Linear(2, 1), fine_tuning_lr=0.0)
    made.prepare(1)
    assert rates(made) == [0.0, 0.0]


@pytest.mark.parametrize("fresh", [True, False])
def test_schedulers_start_from_the_fine_tuning_rate(fresh: bool) -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(
        learner, fine_tuning_lr=0.01, fresh=fresh, scheduler_cls=ExponentialLR, scheduler_kwargs={"gamma": 0.5}
    )
    made.prepare(0)
    train(made, learner, 2)
    assert rates(made) == pytest.approx([0.025, 0.125])
    made.prepare(1)
    assert rates(made) == [0.01, 0.01]
    assert made.scheduler.base_lrs == [0.01, 0.01]
    train(made, learner, 2)
    assert rates(made) == pytest.approx([0.0025, 0.0025])
    made.prepare(2)
    assert rates(made) == pytest.approx([0.01, 0.01] if fresh else [0.0025, 0.0025])


def test_a_fresh_step_has_a_fresh_schedule_of_the_new_optimizer() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner, scheduler_cls=MultiStepLR, scheduler_kwargs={"milestones": [2], "gamma": 0.1})
    seen = []
    for step in range(3):
        made.prepare(step)
        assert made.scheduler.optimizer is made.optimizer
        train(made, learner, 2)
        seen.append(rates(made))
    assert seen == [pytest.approx([0.01, 0.05])] * 3


def test_a_fresh_optimizer_forgets_its_momentum() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner)
    made.prepare(0)
    first = made.optimizer
    train(made, learner)
    made.prepare(1)
    assert made.optimizer is not first
    assert not made.optimizer.state


@pytest.mark.parametrize("fine_tuning_lr", [None, 0.01])
def test_a_kept_optimizer_keeps_its_momentum(fine_tuning_lr: float | None) -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner, fresh=False, fine_tuning_lr=fine_tuning_lr)
    made.prepare(0)
    first = made.optimizer
    train(made, learner)
    for step in (1, 2):
        made.prepare(step)
        assert made.optimizer is first
        assert torch.equal(first.state[learner.weight]["momentum_buffer"], torch.ones(1, 2))


def test_a_kept_schedule_goes_on() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner, fresh=False, scheduler_cls=ExponentialLR, scheduler_kwargs={"gamma": 0.5})
    for step in range(3):
        made.prepare(step)
        train(made, learner)
    assert rates(made) == pytest.approx([0.0125, 0.0625])


def test_frozen_parameters_are_left_out() -> None:
    learner = torch.nn.Linear(2, 1)
    learner.bias.requires_grad = False
    made = optimization(learner, optimizer_cls=torch.optim.SGD)
    made.prepare(0)
    assert made.optimizer is not None
    assert [parameter is learner.weight for parameter in made.optimizer.param_groups[0]["params"]] == [True]


@pytest.mark.parametrize("learner", [torch.nn.ReLU(), torch.nn.Linear(1, 1).requires_grad_(False), object()])
def test_without_trainable_parameters_there_is_no_optimizer(learner: Any) -> None:
    made = optimization(learner, scheduler_cls=ExponentialLR)
    made.prepare(0)
    assert made.optimizer is None
    assert made.scheduler is None


# -- the initial weights ---------------------------------------------------------------------------------


def changed(learner: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for value in [*learner.parameters(), *learner.buffers()]:
            value += 1
    return learner


def test_each_step_starts_from_the_initial_weights_and_buffers() -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    made = optimization(learner, reset=True, optimizer_cls=torch.optim.SGD)
    made.prepare(0)
    for step in (1, 2):
        changed(learner)
        made.prepare(step)
        assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items()), step
        assert made.optimizer is not None
        assert made.optimizer.param_groups[0]["params"][0] is learner[0].weight


def test_step_0_starts_from_what_there_is() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner, reset=True)
    changed(learner)
    before = learner.weight.detach().clone()
    made.prepare(0)
    assert torch.equal(learner.weight, before)


def test_otherwise_training_goes_on() -> None:
    learner = torch.nn.Linear(2, 1)
    made = optimization(learner)
    made.prepare(0)
    before = changed(learner).weight.detach().clone()
    made.prepare(1)
    assert torch.equal(learner.weight, before)
