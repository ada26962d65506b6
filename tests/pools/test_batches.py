"""Batches of any nesting are moved to the device, mapped, and their tensors and leaves listed."""

from __future__ import annotations

import collections
import dataclasses
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
    moved = to_device(batch, CPU, torch.float32)
    assert list(moved) == ["a", "b", "c"]
    assert type(moved["a"]) is tuple
    assert type(moved["a"][1]) is list
    assert type(moved["b"]) is Batch
    assert moved["a"][0].dtype == moved["b"].x.dtype == torch.float32
    assert moved["a"][1][1] == "name"
    assert moved["b"].y == {"n": 3}
    assert moved["c"] is None
    assert floats.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.int32, torch.complex64])
def test_to_device_keeps_other_dtypes(dtype: torch.dtype) -> None:
    assert to_device(torch.ones(2, dtype=dtype), CPU, torch.float16).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_device_casts_floating_point_tensors(dtype: torch.dtype) -> None:
    assert to_device(torch.ones(2, dtype=dtype), CPU, torch.float32).dtype == torch.float32


def test_tensors_of_a_batch_are_moved_to_the_device() -> None:
    assert to_device([torch.ones(2)], torch.device("meta"), torch.float32)[0].is_meta


class Graph:
    """A batch that moves itself, as batches of graphs do."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graph:
        return Graph(self.x.to(device))


class InPlace(Graph):
    def to(self, device: torch.device) -> None:  # type: ignore[override]
        self.x = self.x.to(device)


class GraphMapping(dict[str, Any]):
    def to(self, device: torch.device) -> GraphMapping:
        return GraphMapping({name: value.to(device) for name, value in self.items()})


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor
    name: str
    inner: Any = None


@dataclasses.dataclass
class Derived:
    x: torch.Tensor
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        assert not hasattr(self.x, "made"), "it is made again"
        self.x.made = True  # type: ignore[attr-defined]
        self.size = len(self.x)


META = torch.device("meta")


@pytest.mark.parametrize("kind", [Graph, InPlace])
@pytest.mark.parametrize("place", [lambda one: one, lambda one: (one, 1), lambda one: {"a": [one]}])
def test_object_that_can_be_moved_is_moved_in_any_place(kind: type[Graph], place: Any) -> None:
    moved = to_device(place(kind(torch.ones(2, dtype=torch.float64))), META, torch.float32)
    (graph,) = (leaf for leaf in leaves_of(moved) if isinstance(leaf, Graph))
    assert type(graph) in (kind, Graph)
    assert graph.x.is_meta
    assert graph.x.dtype == torch.float64


def test_container_that_moves_itself_is_not_taken_apart() -> None:
    mapping = to_device(GraphMapping(x=torch.ones(2)), META, torch.float32)
    assert type(mapping) is GraphMapping
    assert mapping["x"].is_meta
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    moved = to_device(packed, META, torch.float32)
    assert moved.data.is_meta
    assert moved.batch_sizes.device == CPU, "as torch wants it"


def test_fields_of_a_dataclass_are_moved_without_making_it_again() -> None:
    given = Frozen(torch.ones(2, dtype=torch.float64), "a", [Derived(torch.ones(3))])
    moved = to_device(given, META, torch.float32)
    assert (type(moved), moved.name, type(moved.inner[0]), moved.inner[0].size) == (Frozen, "a", Derived, 3)
    assert moved.x.is_meta
    assert moved.x.dtype == torch.float32
    assert moved.inner[0].x.is_meta
    assert not given.x.is_meta
    assert to_device(Frozen, META, torch.float32) is Frozen


def test_tensors_of_lists_tensors_in_their_order() -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    nested = collections.OrderedDict(z=(a, "x", [b]), y=Batch(c, None))
    assert [id(tensor) for tensor in tensors_of(nested)] == [id(a), id(b), id(c)]
    assert tensors_of("text") == []


def test_leaves_of_several_batches_are_mapped_in_their_places() -> None:
    one = {"a": (torch.zeros(2), [1, "x"]), "b": Batch(torch.ones(1), 2)}
    other = {"a": (torch.ones(3), [10, "y"]), "b": Batch(torch.ones(4), 20)}
    batch = map_leaves(lambda here, there: (type(here), there if isinstance(there, int) else len(there)), one, other)
    assert batch == {"a": ((torch.Tensor, 3), [(int, 10), (str, 1)]), "b": Batch((torch.Tensor, 4), (int, 20))}
    assert type(batch["b"]) is Batch
    assert [len(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves_of(one)] == [2, 1, "x", 1, 2]
