"""What may be asked for: unlabeled samples that nobody asked for, against a brute-force set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.pools import TensorPool, candidates
from alcore.pools.candidates import Candidates


class Listing:
    """A pool that lists its ids in one go, without `total`; ids need not start at 0."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def unlabeled_indices(self) -> torch.Tensor:
        return torch.tensor(self.ids, dtype=torch.int64)

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        return ids


class Windows(Listing):
    """A large pool: it tells its size, and is asked for windows."""

    def __init__(self, ids: list[int], total: int) -> None:
        super().__init__(ids)
        self.total = total
        self.asked: list[tuple[int, int]] = []

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        assert stop is not None, "a large pool is never listed in one go"
        self.asked.append((start, stop))
        return torch.tensor([sample for sample in self.ids if start <= sample < stop], dtype=torch.int64)


@settings(deadline=None)
@given(
    st.integers(0, 30),
    st.sets(st.integers(0, 29)),
    st.lists(st.integers(0, 35), max_size=20),
    st.integers(1, 8),
    st.sampled_from([1, 3, 7, 100]),
    st.booleans(),
    st.sampled_from([0, 1, 2**11]),
    st.sets(st.integers(-3, 2**64), max_size=5),
)
def test_chunks_against_a_brute_force_set(
    n: int, labeled: set[int], taken: list[int], size: int, window: int, total: bool, worth: int, far: set[int]
) -> None:
    unlabeled = sorted(set(range(n)) - labeled)
    before = candidates._WINDOW, candidates._WORTH_LISTING
    candidates._WINDOW, candidates._WORTH_LISTING = window, worth
    try:
        remaining = Candidates(Windows(unlabeled, n) if total else Listing(unlabeled))
        remaining.mask(taken[::2])
        list(remaining.chunks(size))
        remaining.mask(taken[1::2])
        chunks = list(remaining.chunks(size))
        left = sorted(set(unlabeled) - set(taken))
        assert [sample for chunk in chunks for sample in chunk.tolist()] == left
        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        assert all(0 < len(chunk) <= size and chunk.dtype == torch.int64 for chunk in chunks)
        assert remaining.any() == bool(left)
        for sample in range(-2, n + 3):
            assert (sample in remaining) == (sample in left)
        assert remaining.among([*range(-2, n + 3), *far]) == set(left)
        assert remaining.among(sample for sample in range(0, n, 3)) == set(range(0, n, 3)) & set(left)
    finally:
        candidates._WINDOW, candidates._WORTH_LISTING = before


@given(st.sets(st.integers(0, 2**40), max_size=10), st.sets(st.integers(0, 2**40), max_size=5))
def test_ids_need_not_be_dense(ids: set[int], taken: set[int]) -> None:
    remaining = Candidates(Listing(sorted(ids)))
    remaining.mask(taken)
    remaining.mask(list(ids)[:2])
    left = sorted(ids - taken - set(list(ids)[:2]))
    assert [sample for chunk in remaining.chunks(3) for sample in chunk.tolist()] == left


def test_a_tensor_pool_and_its_labels() -> None:
    pool = TensorPool(torch.zeros(8, 1), torch.zeros(8), labeled=[0, 5])
    remaining = Candidates(pool)
    remaining.mask([3])
    pool.append(7)
    assert torch.cat(list(remaining.chunks(2))).tolist() == [1, 2, 4, 6]
    assert 7 not in remaining
    assert 6 in remaining


def test_a_large_pool_is_looked_at_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_WINDOW", 10)
    pool = Windows(list(range(95)), 95)
    remaining = Candidates(pool)
    next(remaining.chunks(4))
    assert pool.asked == [(0, 10)]
    pool.asked.clear()
    list(remaining.chunks(4))
    assert pool.asked == [(start, min(start + 10, 95)) for start in range(0, 95, 10)]
    pool.asked.clear()
    assert 50 in remaining
    assert 95 not in remaining
    assert pool.asked == [(50, 51)]
    pool.asked.clear()
    assert remaining.any()
    assert pool.asked == [(0, 10)]


class Parts(Windows):
    """A pool that offers ten ids in each step, in turn."""

    def step_range(self, step: int) -> Any:
        first = 10 * step % self.total
        return first, min(first + 10, self.total)


def test_a_step_chooses_from_the_ids_that_the_pool_offers_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_WINDOW", 4)
    pool = Parts([*range(0, 10**9, 10**8), *range(20, 27)], 10**9)
    remaining = Candidates(pool)
    remaining.mask([21, 10**8])
    assert torch.cat(list(remaining.chunks(3, 2))).tolist() == [20, 22, 23, 24, 25, 26]
    assert pool.asked == [(20, 24), (24, 28), (28, 30)]
    assert list(remaining.chunks(3, 1)) == []
    assert 2 * 10**8 in remaining, "any other may be asked for by its id"
    assert remaining.any()
    assert candidates.offers_parts(pool)
    assert not candidates.offers_parts(Windows([1], 2))


@pytest.mark.parametrize("given", [5, (0, 12), (-1, 3), (4, 3), (0.0, 3.0), [0, 3]], ids=str)
def test_what_is_no_range_of_ids_is_refused(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parts, "step_range", lambda _self, _step: given)
    with pytest.raises(UsageError, match=r"Parts.step_range\(7\) returned .*; it must return \(start, stop\).* <= 11"):
        next(Candidates(Parts([1, 2], 11)).chunks(4, 7))


@pytest.mark.parametrize("sample", [2**63, 2**70, -(2**63), -1])
@pytest.mark.parametrize("pool", [Listing([1, 2]), Windows([1, 2], 3), []], ids=["listing", "windows", "bare"])
def test_ids_that_no_sample_can_have(pool: Any, sample: int) -> None:
    assert sample not in Candidates(pool)


def test_a_pool_that_cannot_be_chosen_from_only_remembers() -> None:
    remaining = Candidates([])
    assert not remaining.known
    assert Candidates(Listing([])).known
    assert 5 in remaining
    remaining.mask([5])
    assert 5 not in remaining
    assert 6 in remaining
    with pytest.raises(UsageError, match=r"list can't be chosen from.*unlabeled_indices\(\).*inputs\(ids\)"):
        next(remaining.chunks(4))
