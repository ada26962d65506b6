"""Batches of any nesting are placed; modules get their modes back."""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import pytest
import torch

from alcore.pools.batches import evaluating, place, tensors_of

CPU = torch.device("cpu")


class Batch(NamedTuple):
    x: Any
    y: Any


def test_any_nesting_keeps_its_form() -> None:
    floats, whole = torch.ones(2, dtype=torch.float64), torch.arange(2)
    batch = {"a": (floats, [whole, "name"]), "b": Batch(floats, {"n": 3}), "c": None}
    found = place(batch, CPU, torch.float32)
    assert list(found) == ["a", "b", "c"]
    assert type(found["a"]) is tuple
    assert type(found["a"][1]) is list
    assert type(found["b"]) is Batch
    assert found["a"][0].dtype == found["b"].x.dtype == torch.float32
    assert found["a"][1][1] == "name"
    assert found["b"].y == {"n": 3}
    assert found["c"] is None
    assert floats.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.int32, torch.complex64])
def test_other_types_are_kept(dtype: torch.dtype) -> None:
    assert place(torch.ones(2, dtype=dtype), CPU, torch.float16).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_cast(dtype: torch.dtype) -> None:
    assert place(torch.ones(2, dtype=dtype), CPU, torch.float32).dtype == torch.float32


def test_batches_go_to_the_device() -> None:
    assert place([torch.ones(2)], torch.device("meta"), torch.float32)[0].is_meta


def test_tensors_are_listed_in_their_order() -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    nested = collections.OrderedDict(z=(a, "x", [b]), y=Batch(c, None))
    assert [id(one) for one in tensors_of(nested)] == [id(a), id(b), id(c)]
    assert tensors_of("text") == []


def test_each_part_gets_its_mode_back() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    model[1].eval()  # a frozen part
    model.train(True)
    model[1].eval()
    with pytest.raises(ZeroDivisionError), evaluating(model):  # noqa: PT012
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert [part.training for part in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_a_learner_that_is_no_module() -> None:
    with evaluating(object()):
        assert not torch.is_grad_enabled()
