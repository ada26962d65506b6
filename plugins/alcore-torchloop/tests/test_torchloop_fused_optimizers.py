"""Optimizer steps in fewer calls: weights and state are those of torch's own steps, to the bit."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from alcore_torchloop import fused_optimizers
from alcore_torchloop.fused_optimizers import is_untouched, update_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

SHAPES = [(7, 5), (5,), (3, 5), (1, 17), ()]
STEPS = 200


class Weights:
    """Parameters with gradients that are drawn anew at each step."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.draw = torch.Generator().manual_seed(7)
        self.all = [torch.nn.Parameter(torch.randn(shape, generator=self.draw, dtype=dtype)) for shape in SHAPES]

    def new_gradients(self, leave_out: int | None = None) -> None:
        for i, one in enumerate(self.all):
            gradient = torch.randn(one.shape, generator=self.draw, dtype=one.dtype)
            size = torch.exp(8 * torch.randn((), generator=self.draw, dtype=one.dtype))
            one.grad = None if i == leave_out else gradient * size


def own_steps(optimizer: torch.optim.Optimizer) -> Any:
    """Count how often the optimizer's class steps."""
    return mock.patch.object(type(optimizer), "step", autospec=True, side_effect=type(optimizer).step)


def assert_same(make: Any, *, steps: int = STEPS, dtype: torch.dtype = torch.float32, between: Any = None) -> int:
    """Step both ways, compare weights and state, and return how often the optimizer's own step was called."""
    ours, theirs = Weights(dtype), Weights(dtype)
    one, other = make(ours.all), make(theirs.all)
    update = update_of(one)
    with own_steps(one) as counter:
        for step in range(steps):
            ours.new_gradients(between(step, one) if between is not None else None)
            update()
        calls = counter.call_count
    for step in range(steps):
        theirs.new_gradients(between(step, other) if between is not None else None)
        other.step()
    assert all(map(torch.equal, ours.all, theirs.all))
    for mine, own in zip(one.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        assert mine.keys() == own.keys()
        assert all(torch.equal(mine[name], own[name]) for name in own if own[name] is not None)
    return calls


OPTIMIZERS: dict[str, Any] = {
    "sgd": (torch.optim.SGD, {"lr": 0.05}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "decay": (torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.1}),
    "maximize": (torch.optim.SGD, {"lr": 1e-3, "maximize": True, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adam decay": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "adamw no decay": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.0, "maximize": True}),
}
NOT_DIRECT: dict[str, Any] = {
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "foreach": (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    "fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "tensor rate": (torch.optim.SGD, {"lr": torch.tensor(0.05)}),
    "another": (torch.optim.RMSprop, {"lr": 0.01}),
    "a class of one's own": (type("Own", (torch.optim.SGD,), {}), {"lr": 0.05}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_steps_are_the_same_to_the_bit(name: str, dtype: torch.dtype) -> None:
    cls, options = OPTIMIZERS[name]
    calls = assert_same(lambda weights: cls(weights, **options), dtype=dtype)
    assert calls == (0 if name in ("sgd", "decay", "maximize") else 1), "the first step makes the state"


@pytest.mark.parametrize("name", NOT_DIRECT)
def test_optimizer_steps_itself_if_results_would_differ(name: str) -> None:
    cls, options = NOT_DIRECT[name]
    assert assert_same(lambda weights: cls(weights, **options), steps=20) == 20


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW]),
    st.floats(1e-6, 1.0),
    st.sampled_from([0.0, 1e-4, 0.3]),
    st.sampled_from([0.0, 0.5, 0.99]),
    st.booleans(),
)
def test_fused_steps_equal_the_optimizers_for_any_settings(
    cls: Any, rate: float, decay: float, momentum: float, maximize: bool
) -> None:
    options = {"momentum": momentum} if cls is torch.optim.SGD else {"betas": (momentum, 0.99)}
    assert_same(lambda weights: cls(weights, lr=rate, weight_decay=decay, maximize=maximize, **options), steps=10)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_groups_have_settings_of_their_own(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    assert_same(lambda weights: cls([{"params": [one], "lr": 0.01 * i} for i, one in enumerate(weights)], **options))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_a_step_without_some_gradient_is_the_optimizers_own(name: str) -> None:
    """Then counters differ from parameter to parameter."""
    cls, options = OPTIMIZERS[name]
    calls = assert_same(lambda weights: cls(weights, **options), between=lambda step, _: 2 if step % 7 == 3 else None)
    assert STEPS // 7 <= calls < STEPS // 4


def test_settings_and_state_may_change_on_the_way() -> None:
    def change(step: int, optimizer: Any) -> None:
        if step == 50:
            optimizer.param_groups[0].update(lr=0.5, betas=(0.5, 0.9), weight_decay=0.0)
        elif step == 100:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif step == 150:
            optimizer.state.clear()

    assert assert_same(lambda weights: torch.optim.AdamW(weights, lr=0.01), between=change) == 2


@pytest.mark.parametrize(
    "make", [lambda one: ExponentialLR(one, 0.9), lambda one: OneCycleLR(one, 0.1, total_steps=90)]
)
def test_a_schedule_is_followed(make: Any) -> None:
    """The second one changes the momentum as well."""
    results = []
    for direct in (True, False):
        weights = Weights()
        optimizer = torch.optim.SGD(weights.all, lr=0.1, momentum=0.9)
        schedule, update = make(optimizer), update_of(optimizer, direct=direct)
        for _ in range(80):
            weights.new_gradients()
            update()
            schedule.step()
        results.append(weights.all)
    assert all(map(torch.equal, *results))


def test_hooks_are_called() -> None:
    weights = Weights()
    optimizer = torch.optim.SGD(weights.all, lr=0.1)
    calls: list[str] = []
    update = update_of(optimizer)

    def after_a_step() -> list[str]:
        weights.new_gradients()
        update()
        return calls

    handle = optimizer.register_step_post_hook(lambda *_: calls.append("own"))
    assert not is_untouched(optimizer)
    assert after_a_step() == ["own"]
    handle.remove()
    assert is_untouched(optimizer)
    handle = register_optimizer_step_pre_hook(lambda *_: calls.append("global"))
    try:
        assert not is_untouched(optimizer)
        assert after_a_step() == ["own", "global"]
    finally:
        handle.remove()
    assert after_a_step() == ["own", "global"]
    optimizer.step = lambda: calls.append("mine")  # type: ignore[method-assign,assignment]
    assert not is_untouched(optimizer)
    update_of(optimizer)()
    assert calls == ["own", "global", "mine"]


def test_parameters_that_join_are_stepped() -> None:
    late: list[torch.nn.Parameter] = []

    def join(step: int, optimizer: Any) -> None:
        if step == 3:
            late.append(torch.nn.Parameter(torch.ones(3, dtype=torch.complex64)))
            late[-1].grad = torch.full_like(late[-1], 1 + 1j)
            optimizer.add_param_group({"params": [late[-1]]})

    assert_same(lambda weights: torch.optim.AdamW(weights, lr=0.1), steps=9, between=join)
    assert torch.equal(*late)
    assert not torch.equal(late[0], torch.ones(3))


@pytest.mark.parametrize("parameter", [torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.complex64)])
def test_other_numbers_are_left_to_the_optimizer(parameter: torch.Tensor) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(parameter)])
    update = update_of(optimizer)
    with own_steps(optimizer) as counter:
        for _ in range(3):
            optimizer.param_groups[0]["params"][0].grad = torch.ones_like(parameter)
            update()
    assert counter.call_count == 3


def test_optimizer_steps_itself_if_the_trial_differs(monkeypatch: Any) -> None:
    """As they might in another version of torch: a trial of each optimizer and its settings finds it."""
    kinds = dict(fused_optimizers._KINDS)
    kinds[torch.optim.SGD] = ("momentum_buffer", lambda ready: torch._foreach_add_(ready.parameters, 1e-7))
    monkeypatch.setattr(fused_optimizers, "_KINDS", kinds)
    fused_optimizers._same_bits.cache_clear()
    try:
        assert assert_same(lambda weights: torch.optim.SGD(weights, lr=0.1), steps=5) == 5
    finally:
        fused_optimizers._same_bits.cache_clear()


def test_the_trial_leaves_the_generators_alone() -> None:
    fused_optimizers._same_bits.cache_clear()
    before = torch.get_rng_state()
    update_of(torch.optim.AdamW(Weights().all))
    assert torch.equal(torch.get_rng_state(), before)
