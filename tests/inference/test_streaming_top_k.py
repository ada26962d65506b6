"""What is chosen: by scores, by estimates that spare most of them, at random, and by several processes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.inference import Recorder
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.distributed.ranks import Ranks
from alcore.errors import QueryError, UsageError
from alcore.inference import merge, streaming
from alcore.inference.streaming import check_scores, subset, top_k
from alcore.pools import TensorPool
from alcore.pools.candidates import Candidates


@pytest.mark.parametrize("scores", [torch.zeros(3, 1), torch.zeros(2), torch.tensor(1.0), [1, 2, 3], None])
def test_scores_are_one_number_a_sample(scores: Any) -> None:
    with pytest.raises(UsageError, match=r"for 3 samples; it must return a tensor \(3,\)"):
        check_scores(scores, 3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("k", [0, 1, 5, 60])
def test_top_k_of_a_pool(k: int) -> None:
    driver = Recorder(50, labeled=(49,))
    best = top_k(driver, lambda outputs: (outputs[:, 0] % 5).float(), k)  # type: ignore[arg-type]
    expected = sorted(range(49), key=lambda one: (-(one % 5), one))[:k]
    assert best.ids.tolist() == expected
    assert bool(driver.shapes) == (k > 0)


def test_a_score_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"returned \(9, 1\) for 9 samples"):
        top_k(Recorder(9), lambda outputs: outputs, 3)  # type: ignore[arg-type]


def test_a_sample_is_worth_the_same_wherever_it_stands() -> None:
    """Equal samples tie to the last bit, whatever chunk they are in, so the lowest ids come first."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(7, 33), torch.nn.Tanh(), torch.nn.Linear(33, 1))
    driver = Recorder(1)
    driver.learner = net
    rows = torch.randn(3, 7)
    order = torch.randint(0, 3, (40_000,))
    driver.choice_pool = TensorPool(rows[order], torch.zeros(40_000))
    driver._candidates = Candidates(driver.choice_pool)
    infer = torch.no_grad()(lambda inputs: net(inputs)[:, 0])
    best = top_k(driver, lambda outputs: outputs, 40_000, infer)  # type: ignore[arg-type]
    assert len(best.scores.unique()) == 3
    for score in best.scores.unique():
        ids = best.ids[best.scores == score]
        assert bool((ids[1:] > ids[:-1]).all())
        assert len(order[ids].unique()) == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("n", [1, 16, 17, 100])
def test_top_k_is_the_same_for_any_number_of_processes(n: int) -> None:
    def score(outputs: torch.Tensor) -> torch.Tensor:
        return (outputs[:, 0] * 7 % 10).float()

    alone = top_k(Recorder(n), score, 12)  # type: ignore[arg-type]
    for processes in (2, 4, 8):
        seen, parts = [], []
        for rank in range(processes):
            driver = Recorder(n)
            parts.append(top_k(driver, score, 12, shard=(rank, processes)))  # type: ignore[arg-type]
            seen += driver.shapes
        assert len(seen) == math.ceil(n / 16)
        assert len(set(seen)) == 1
        assert merge(parts, 12).ids.tolist() == alone.ids.tolist()


class FirstOfTwo(Ranks):
    """Rank 0 of two processes, of which the other finds nothing."""

    size = 2

    def gather(self, value: Any) -> list[Any]:
        return [value, (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))]


@pytest.mark.usefixtures("small")
def test_ranks_score_chunks_of_the_same_rows_as_one_process() -> None:
    def score(outputs: torch.Tensor) -> torch.Tensor:
        return outputs[0, :, 0]

    alone, shared = Recorder(100, posterior=2), Recorder(100, posterior=2)
    shared.ranks = FirstOfTwo()
    top_k(alone, score, 12, samples=2)  # type: ignore[arg-type]
    top_k(shared, score, 12, samples=2)  # type: ignore[arg-type]
    assert set(shared.shapes) == set(alone.shapes) == {8}


# -- estimates -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@settings(deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=70),
    st.integers(0, 20),
    st.sampled_from([0.0, 0.01, 0.5, 2.0]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
def test_estimates_change_nothing(scores: list[int], k: int, error: float, dtype: torch.dtype, seed: int) -> None:
    exact = torch.tensor(scores, dtype=torch.float64) / 3
    off = (torch.rand(len(scores), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) * error
    rough = exact.to(dtype) if dtype == torch.float64 else (exact + off).to(dtype)
    said = 0.0 if dtype == torch.float64 else error + 2e-7

    def estimate(outputs: torch.Tensor) -> tuple[torch.Tensor, float]:
        return rough[outputs[:, 0].long()], said

    best = top_k(Recorder(len(scores)), lambda out: exact[out[:, 0].long()], k, None, estimate)  # type: ignore[arg-type]
    expected = sorted(range(len(scores)), key=lambda one: (-exact[one].item(), one))[:k]
    assert best.ids.tolist() == expected
    assert best.scores.tolist() == exact[expected].tolist()


def test_samples_that_an_estimate_rules_out_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_MAX_ROWS", 4096)
    scored = []

    def score(outputs: torch.Tensor) -> torch.Tensor:
        scored.append(len(outputs))
        return outputs[:, 0]

    best = top_k(Recorder(50_000), score, 10, None, lambda out: (out[:, 0] + 0.5, 0.5))  # type: ignore[arg-type]
    assert best.ids.tolist() == list(range(49_999, 49_989, -1))
    assert sum(scored) < 200
    assert len(scored) < 12  # of 13 chunks


@pytest.mark.parametrize("bad", [[3], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_a_nan_is_not_ruled_out(bad: list[int]) -> None:
    def score(outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0].index_fill(0, (outputs[:, 0] < 8).nonzero().flatten(), math.nan) if bad else outputs

    def one(outputs: torch.Tensor) -> torch.Tensor:
        places = torch.isin(outputs[:, 0], torch.tensor(bad, dtype=torch.float32))
        return (-outputs[:, 0]).where(~places, math.nan)

    with pytest.raises(QueryError, match=f"score of sample {bad[0]}"):
        top_k(Recorder(60), one, 4, None, lambda outputs: (one(outputs), 0.1))  # type: ignore[arg-type]


# -- a part of the candidates ------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "n"), [(None, 38), (7, 7), (100, 38), (0.5, 19), (1.0, 38), (0.01, 1), (0.1, 4)])
def test_a_part_of_the_candidates(size: Any, n: int) -> None:
    driver = Recorder(40, labeled=(3, 5))
    ids = subset(driver, size, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    assert len(ids) == n
    assert bool((ids[1:] > ids[:-1]).all())
    assert not {3, 5} & set(ids.tolist())
    again = subset(driver, size, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    assert torch.equal(ids, again)


def test_a_fraction_is_not_rounded_up_by_the_error_of_a_product() -> None:
    assert 0.07 * 100 > 7
    assert len(subset(Recorder(100), 0.07, torch.Generator())) == 7  # type: ignore[arg-type]


def test_subset_draws_each_candidate_with_equal_probability() -> None:
    driver, generator = Recorder(10), torch.Generator().manual_seed(5)
    counts = torch.zeros(10)
    for _ in range(1000):
        counts[subset(driver, 3, generator)] += 1  # type: ignore[arg-type]
    assert float(((counts - 300) ** 2 / 300).sum()) < 27.9  # chi-square of 9 degrees, 1 in 1000


def test_subset_of_no_candidates_is_empty() -> None:
    for size in (None, 3, 0.5):
        assert len(subset(Recorder(1, labeled=(0,)), size, torch.Generator())) == 0  # type: ignore[arg-type]
