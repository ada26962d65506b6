"""Batches of any nesting are moved to the device, mapped, and their tensors and leaves listed."""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import pytest
import torch

from alcore.pools.batches import leaves_of, map_leaves, tensors_of, to_device

CPU = torch.device("cpu")


class Batch(NamedTuple):
    x: Any
    y: Any


def test_to_device_keeps_containers_of_any_nesting() -> None:
    floats, whole = torch.ones(2, dtype=torch.float64), torch.arange(2)
    batch = {"a": (floats, [whole, "name"]), "b": Batch(floats, {"n": 3}), "c": None}
    found = to_device(batch, CPU, torch.float32)
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
def test_to_device_keeps_other_dtypes(dtype: torch.dtype) -> None:
    assert to_device(torch.ones(2, dtype=dtype), CPU, torch.float16).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_device_casts_floating_point_tensors(dtype: torch.dtype) -> None:
    assert to_device(torch.ones(2, dtype=dtype), CPU, torch.float32).dtype == torch.float32


def test_tensors_of_a_batch_are_moved_to_the_device() -> None:
    assert to_device([torch.ones(2)], torch.device("meta"), torch.float32)[0].is_meta


def test_tensors_of_lists_tensors_in_their_order() -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    nested = collections.OrderedDict(z=(a, "x", [b]), y=Batch(c, None))
    assert [id(one) for one in tensors_of(nested)] == [id(a), id(b), id(c)]
    assert tensors_of("text") == []


def test_leaves_of_several_batches_are_mapped_in_their_places() -> None:
    one = {"a": (torch.zeros(2), [1, "x"]), "b": Batch(torch.ones(1), 2)}
    other = {"a": (torch.ones(3), [10, "y"]), "b": Batch(torch.ones(4), 20)}
    found = map_leaves(lambda here, there: (type(here), there if isinstance(there, int) else len(there)), one, other)
    assert found == {"a": ((torch.Tensor, 3), [(int, 10), (str, 1)]), "b": Batch((torch.Tensor, 4), (int, 20))}
    assert type(found["b"]) is Batch
    assert [len(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves_of(one)] == [2, 1, "x", 1, 2]
