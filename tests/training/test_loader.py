"""Batches: the same by block and by item, in an order that depends on seed, step and epoch alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.pools import TensorPool
from alcore.pools.batches import tensors_of
from alcore.training import loader as loaders
from alcore.training.loader import BatchLoader


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "tensor": lambda x, y: x,
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "named": Pair,
    "dict": lambda x, y: {"x": x, "y": y},
    "nested": lambda x, y: {"a": (x, {"b": y}), "c": Pair(y, x)},
}


class Items:
    """A pool of items in a form."""

    def __init__(self, n: int, form: str = "tuple") -> None:
        self.x, self.y = torch.arange(n * 3, dtype=torch.float64).reshape(n, 3), torch.arange(n)
        self.form = FORMS[form]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.form(self.x[index], self.y[index])


class Blocks(Items):
    """The same, fetched whole."""

    calls: list[int]

    def batch(self, positions: torch.Tensor) -> Any:
        self.calls = [*getattr(self, "calls", []), len(positions)]
        return self.form(self.x[positions], self.y[positions])


def loader(pool: Any, size: int = 4, **options: Any) -> BatchLoader:
    return BatchLoader(pool, size, **{"device": torch.device("cpu"), "dtype": torch.float32, **options})


def order(of: BatchLoader) -> list[int]:
    """Positions in the order of one epoch; the pool's targets are its positions."""
    return [target for batch in of for target in tensors_of(batch)[-1].tolist()]


def form_of(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return (batch.dtype, tuple(batch.shape))
    if isinstance(batch, dict):
        return {key: form_of(value) for key, value in batch.items()}
    kind = type(batch) if hasattr(batch, "_fields") else "sequence"  # default_collate makes a list of a tuple
    return [kind, *map(form_of, batch)]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 23),
    st.integers(1, 9),
    st.sampled_from(sorted(FORMS)),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 3)),
    st.integers(0, 3),
    st.sampled_from([1, 100, 10**7]),
)
def test_blocks_and_items_give_the_same_batches(
    n: int, size: int, form: str, drop_last: bool, seed: int | None, epoch: int, block: int
) -> None:
    if drop_last and 0 < n < size:
        return
    options: dict[str, Any] = {"drop_last": drop_last, "epoch": epoch, "seed": None if seed is None else (seed, 1)}
    before, loaders._BLOCK_BYTES = loaders._BLOCK_BYTES, block
    try:
        blocks, items = loader(Blocks(n, form), size, **options), loader(Items(n, form), size, **options)
        for _ in range(2):
            one, other = list(blocks), list(items)
            assert len(one) == len(other) == len(blocks) == len(items)
            for left, right in zip(one, other, strict=True):
                assert form_of(left) == form_of(right)
                assert all(map(torch.equal, tensors_of(left), tensors_of(right)))
    finally:
        loaders._BLOCK_BYTES = before


@pytest.mark.parametrize("form", sorted(FORMS))
def test_batches_keep_the_form_that_the_pool_gave(form: str) -> None:
    pool = Blocks(5, form)
    (batch, _) = loader(pool)
    whole = pool.batch(torch.arange(4))
    assert type(batch) is type(whole)
    assert all(left.shape == right.shape for left, right in zip(tensors_of(batch), tensors_of(whole), strict=True))


# -- order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [Blocks(50), Items(50)], ids=["blocks", "items"])
def test_the_order_depends_on_seed_step_and_epoch_alone(pool: Any) -> None:
    def of(seed: int = 0, step: int = 1, epoch: int = 0) -> list[int]:
        torch.manual_seed(random.randrange(10**6))
        return order(loader(pool, seed=(seed, step, "training"), epoch=epoch))

    assert of() == of()
    assert sorted(of()) == list(range(50))
    assert len({tuple(positions) for positions in (of(), of(seed=1), of(step=2), of(epoch=1), of(epoch=2))}) == 5


@pytest.mark.parametrize("pool", [Blocks(50), Items(50)], ids=["blocks", "items"])
def test_iterating_again_is_the_next_epoch(pool: Any) -> None:
    whole = loader(pool, seed=(0, 1))
    epochs = [order(whole) for _ in range(3)]
    assert epochs == [order(loader(pool, seed=(0, 1), epoch=epoch)) for epoch in range(3)]
    whole.set_epoch(1)
    assert order(whole) == epochs[1]
    assert order(whole) == epochs[2]


@pytest.mark.parametrize("pool", [Blocks(9), Items(9)], ids=["blocks", "items"])
def test_without_a_seed_the_order_is_the_pools(pool: Any) -> None:
    whole = loader(pool)
    assert order(whole) == order(whole) == list(range(9))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pool", [Blocks(9), Items(9)], ids=["blocks", "items"])
def test_the_global_generators_are_left_alone(pool: Any, workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    order(loader(pool, seed=(0, 1), workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]


# -- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_cls", [Blocks, Items])
@pytest.mark.parametrize(("n", "drop_last", "sizes"), [(9, False, [4, 4, 1]), (9, True, [4, 4]), (8, True, [4, 4]), (0, True, [])])  # fmt: skip  # noqa: E501
def test_the_last_batch(pool_cls: type[Items], n: int, drop_last: bool, sizes: list[int]) -> None:
    whole = loader(pool_cls(n), seed=(0,), drop_last=drop_last)
    assert [len(batch[1]) for batch in whole] == sizes
    assert len(whole) == len(sizes)


@pytest.mark.parametrize("pool_cls", [Blocks, Items])
def test_dropping_every_batch_is_refused(pool_cls: type[Items]) -> None:
    with pytest.raises(UsageError, match="3 labeled items, fewer than the batch size of 4"):
        loader(pool_cls(3), drop_last=True)


def test_a_collate_function_makes_the_batches() -> None:
    def collate(items: list[Any]) -> Any:
        return {"count": len(items), "y": torch.stack([y for _, y in items]).double()}

    pool = Blocks(6)
    batches = list(loader(pool, collate_fn=collate))
    assert [batch["count"] for batch in batches] == [4, 2]
    assert batches[0]["y"].dtype == torch.float32
    assert not hasattr(pool, "calls")


class Drawing(Items):
    """A pool that augments with the generators of its worker."""

    def __getitem__(self, index: int) -> Any:
        return torch.rand(1, dtype=torch.float64), torch.tensor(index)


def test_workers_fetch_the_same_batches() -> None:
    alone, helped = loader(Items(11), seed=(0, 1)), loader(Items(11), seed=(0, 1), workers=2)
    for _ in range(2):
        one, other = list(alone), list(helped)
        assert len(one) == len(other) == 3
        assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_what_workers_draw_depends_on_the_epoch_and_not_on_those_before() -> None:
    def drawn(of: BatchLoader) -> list[float]:
        return [row for batch in of for row in batch[0].flatten().tolist()]

    whole = loader(Drawing(4), seed=(0, 1), workers=2)
    epochs = [drawn(whole) for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert drawn(loader(Drawing(4), seed=(0, 1), workers=2, epoch=1)) == epochs[1]


# -- types and blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_cls", [Blocks, Items])
def test_floats_are_cast_and_whole_numbers_are_not(pool_cls: type[Items]) -> None:
    for x, y in loader(pool_cls(5), dtype=torch.float16):
        assert (x.dtype, y.dtype) == (torch.float16, torch.int64)


def test_a_tensor_pool_keeps_the_type_of_its_targets() -> None:
    pool = TensorPool(torch.zeros(5, 2), torch.tensor([0, 1, 0, 1, 2], dtype=torch.uint8), labeled=range(5))
    assert {y.dtype for _, y in loader(pool)} == {torch.uint8}


@pytest.mark.parametrize(("row_bytes", "calls"), [(3 * 8 + 8, [4, 40, 40, 16]), (10**6, [4] * 25)])
def test_more_than_a_block_is_fetched_in_several(
    row_bytes: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "_BLOCK_BYTES", 10 * 4 * (3 * 8 + 8) if row_bytes < 100 else 100)
    pool = Blocks(100)
    assert order(loader(pool)) == list(range(100))
    assert pool.calls == calls


def test_four_megabytes_make_a_block() -> None:
    class Large(Blocks):
        def batch(self, positions: torch.Tensor) -> Any:
            self.calls = [*getattr(self, "calls", []), len(positions)]
            return torch.zeros(len(positions), 2**18), positions  # a megabyte each, and eight bytes

    pool = Large(10)
    assert len(list(loader(pool, 1))) == 10
    assert pool.calls == [1, 3, 3, 3]


def in_pool_order(pool: Any) -> list[Any]:
    cpu = torch.device("cpu")
    factory = loaders.LoaderFactory(
        batch_size=3, drop_last=False, collate_fn=None, workers=0, device=cpu, dtype=torch.float32,
        before_batch=lambda: None,
    )  # fmt: skip
    return list(factory.large_batches(pool))


@pytest.mark.parametrize(
    ("numbers", "size", "most"), [(2**20 - 1, 4, 64), (2**23, 1, 64), (2**14 - 1, 256, 256), (7, 4096, 4096)]
)
def test_batches_in_the_order_of_the_pool_are_of_at_most_16_mebibytes(numbers: int, size: int, most: int) -> None:
    calls = []

    class Wide(TensorPool):
        def batch(self, positions: torch.Tensor) -> Any:
            calls.append(len(positions))
            return torch.zeros(1, 1).expand(len(positions), numbers), positions.int()  # of four bytes each

    total = 70 if numbers > 2**15 else 5000
    batches = in_pool_order(Wide(torch.zeros(total, 1), torch.zeros(total), labeled=range(total)))
    assert torch.cat([batch[1] for batch in batches]).tolist() == list(range(total))
    assert [len(batch[1]) for batch in batches] == [min(size, total - start) for start in range(0, total, size)]
    assert calls[0] == 64
    assert max(calls) <= most or max(calls) * 4 * (numbers + 1) <= 4 * 2**20


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("n", [0, 1, 64, 65, 200])
def test_batches_in_the_order_of_the_pool_keep_its_form(form: str, n: int) -> None:
    pool = Blocks(n, form)
    batches = in_pool_order(pool)
    assert len(batches) == min(n, 1)
    if n:
        expected = next(iter(loader(pool, n, seed=None)))
        assert form_of(batches[0]) == form_of(expected)
        assert all(map(torch.equal, tensors_of(batches[0]), tensors_of(expected)))


def test_batches_of_one_block_do_not_share_the_pool() -> None:
    pool = TensorPool(torch.zeros(8, 2), torch.zeros(8), labeled=range(8))
    for x, _ in loader(pool):
        x += 1
    assert not pool.inputs(torch.arange(8)).any()


def test_a_batch_method_that_returns_something_else_is_refused() -> None:
    class Wrong(Blocks):
        def batch(self, positions: torch.Tensor) -> Any:
            return "batch"

    with pytest.raises(UsageError, match=r"batch\(positions\) returned a str"):
        list(loader(Wrong(3)))
