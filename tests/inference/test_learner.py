"""The learner as a whole: weights, and which state it is in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore.errors import UsageError
from alcore.inference.learner import floating_type, learner_state, load_model, model_digest, model_state, place_learner


def test_only_a_module_is_moved_to_device_and_dtype() -> None:
    other = object()
    assert place_learner(other, torch.device("cpu"), torch.float64) is other
    assert place_learner(torch.nn.Linear(2, 1), torch.device("cpu"), torch.float64).weight.dtype == torch.float64


class Mixed(torch.nn.Module):
    """Layers of these types, in their order."""

    def __init__(self, *kinds: torch.dtype) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 1, dtype=kind) for kind in kinds)
        self.register_buffer("scale", torch.ones(1, dtype=torch.float16))


SINGLE, DOUBLE, HALF = torch.float32, torch.float64, torch.bfloat16


@pytest.mark.parametrize("kinds", [(), (SINGLE,), (DOUBLE,), (SINGLE, DOUBLE), (DOUBLE, SINGLE), (HALF, DOUBLE)])
def test_learner_keeps_its_types_unless_one_is_asked_for(kinds: tuple[torch.dtype, ...]) -> None:
    learner = Mixed(*kinds)
    assert place_learner(learner, torch.device("cpu")) is learner
    assert [layer.weight.dtype for layer in learner.layers] == [*kinds]  # type: ignore[union-attr]
    assert learner.scale.dtype == torch.float16
    place_learner(learner, torch.device("cpu"), DOUBLE)
    assert {parameter.dtype for parameter in [*learner.parameters(), *learner.buffers()]} == {DOUBLE}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), SINGLE),
        ((SINGLE, SINGLE), SINGLE),
        ((DOUBLE,), DOUBLE),
        ((HALF, HALF), HALF),
        ((SINGLE, DOUBLE), SINGLE),
        ((DOUBLE, SINGLE), SINGLE),
        ((HALF, DOUBLE), HALF),
    ],
)
def test_batches_have_the_type_of_the_parameters(kinds: tuple[torch.dtype, ...], expected: torch.dtype) -> None:
    assert floating_type(Mixed(*kinds)) == expected
    assert floating_type(object()) == SINGLE


def test_state_digest_and_loading_of_a_learner_without_state_dict() -> None:
    assert model_state(object()) == {}
    assert model_digest(object()) == model_digest(SimpleNamespace(state_dict=lambda: None))
    load_model(object(), {})


def test_digest_tells_weights_apart_by_name_and_value() -> None:
    one, same, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    load_model(same, model_state(one))
    assert model_digest(one) == model_digest(same) != model_digest(other)
    assert model_digest(SimpleNamespace(state_dict=lambda: {"a": 1})) != model_digest(
        SimpleNamespace(state_dict=lambda: {"b": 1})
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.complex64])
def test_digest_tells_weights_of_any_type_and_shape_apart(dtype: torch.dtype) -> None:
    def digest(value: torch.Tensor) -> str:
        return model_digest(SimpleNamespace(state_dict=lambda: {"a": value}))

    one, other = torch.tensor([1, 0]).to(dtype), torch.tensor([0, 1]).to(dtype)
    assert digest(one) != digest(other)
    assert digest(one[0]) != digest(one[1])  # no dimensions


def test_digest_does_not_depend_on_layout_in_memory_or_on_the_mode() -> None:
    learner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    before = model_digest(learner)
    learner[0].weight = torch.nn.Parameter(learner[0].weight.detach().T.contiguous().T)
    assert model_digest(learner.eval()) == before
    learner[1].running_mean += 1
    assert model_digest(learner) != before


def test_weights_of_another_learner_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the learner is not the one of this run: .*size mismatch"):
        load_model(torch.nn.Linear(2, 1), model_state(torch.nn.Linear(3, 1)))


@pytest.mark.parametrize(("trains", "alike"), [(True, False), (False, True)])
def test_state_of_a_learner_that_trains_is_another_in_each_step(trains: bool, alike: bool) -> None:
    learner = torch.nn.Linear(2, 1)

    def at(step: int, model: Any = learner) -> str:
        return learner_state(SimpleNamespace(learner=model, trains=trains, active_learning_step_idx=step))  # type: ignore[arg-type]

    assert at(0) == at(0) != ""
    assert (at(0) == at(1)) is alike
    assert at(0, object()) == ""
