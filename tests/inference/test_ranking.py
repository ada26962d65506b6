"""The best of a stream are the best of a full sort."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.errors import QueryError
from alcore.inference.ranking import TopK, merge

few = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, math.inf, -math.inf])
parts = st.lists(st.lists(st.one_of(few, st.floats(allow_nan=False, width=32)), max_size=9), max_size=6)


@settings(deadline=None)
@given(parts, st.integers(0, 12), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 5))
def test_the_best_of_a_stream_against_a_full_sort(
    stream: list[list[float]], k: int, dtype: torch.dtype, gap: int
) -> None:
    best, pairs = TopK(k), []
    for part in stream:
        ids = torch.arange(len(part)) * gap + len(pairs) * gap
        best.add(ids, torch.tensor(part, dtype=dtype))
        pairs += list(zip(part, ids.tolist(), strict=True))
        assert sum(map(len, best._scores)) < max(2 * k, 1)  # O(k) is kept between chunks
    expected = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
    result = best.result()
    assert result.ids.tolist() == [one for _, one in expected]
    assert result.scores.tolist() == [score for score, _ in expected]
    assert result.ids.dtype == torch.int64


def test_of_equal_scores_the_lowest_ids_are_kept() -> None:
    best = TopK(3)
    for start in range(0, 100, 7):
        best.add(torch.arange(start, min(start + 7, 100)), torch.ones(min(7, 100 - start)))
    assert best.result().ids.tolist() == [0, 1, 2]


def test_many_are_kept_without_sorting_each_time() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5000, (20_000,), generator=draw).double()
    best = TopK(3000)
    for ids in torch.arange(20_000).split(100):
        best.add(ids, scores[ids])
        assert sum(map(len, best._scores)) < 6000
    expected = torch.sort(scores, descending=True, stable=True).indices[:3000]
    assert torch.equal(best.result().ids, expected)


@settings(deadline=None)
@given(st.lists(st.integers(-2, 2), max_size=40), st.integers(0, 9), st.integers(1, 4))
def test_processes_find_together_what_one_finds(scores: list[int], k: int, processes: int) -> None:
    whole, shares = TopK(k), [TopK(k) for _ in range(processes)]
    for ids in torch.arange(len(scores)).split(3) if scores else ():
        values = torch.tensor(scores, dtype=torch.float32)[ids]
        whole.add(ids, values)
        shares[int(ids[0]) // 3 % processes].add(ids, values)
    merged = merge([share.result() for share in shares], k)
    assert merged.ids.tolist() == whole.result().ids.tolist()
    assert merged.scores.tolist() == whole.result().scores.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_scores_of_other_types_are_ranked(dtype: torch.dtype) -> None:
    best = TopK(2)
    for start in (0, 4):
        best.add(torch.arange(start, start + 4), torch.tensor([1.0, 3.0, 2.0, 3.0], dtype=dtype))
    assert best.result().ids.tolist() == [1, 3]


def test_scores_of_several_precisions_are_ranked_exactly() -> None:
    third = torch.tensor([1 / 3], dtype=torch.float64)
    best = TopK(1)
    best.add(torch.tensor([0]), third)  # in single precision 1/3 is more than that
    best.add(torch.tensor([1]), third.float())
    assert best.result().ids.tolist() == [1]
    best.add(torch.tensor([2]), third)
    assert best.result().ids.tolist() == [1]


def test_nan_names_the_samples() -> None:
    best = TopK(2)
    best.add(torch.tensor([1, 2]), torch.tensor([0.5, 0.25]))
    with pytest.raises(QueryError, match="score of sample 7, 9 is NaN"):
        best.add(torch.tensor([7, 8, 9]), torch.tensor([math.nan, 1.0, math.nan]))
    assert best.result().ids.tolist() == [1, 2]


def test_scores_that_need_gradients_are_let_go() -> None:
    best = TopK(1)
    best.add(torch.tensor([1, 2]), torch.tensor([0.5, 0.75], requires_grad=True))
    assert not best.result().scores.requires_grad
