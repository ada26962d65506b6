"""The best of a stream are the best of a full sort; the learner sees chunks of one shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore import scoring
from alcore.candidates import Candidates
from alcore.errors import QueryError, UsageError
from alcore.loaders import BatchLoader
from alcore.pools import TensorPool
from alcore.scoring import TopK, check_scores, chunks, evaluate, top_k

# -- ranking ---------------------------------------------------------------------------------------------

few = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, math.inf, -math.inf])
parts = st.lists(st.lists(st.one_of(few, st.floats(allow_nan=False, width=32)), max_size=9), max_size=6)


@given(parts, st.integers(0, 12), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 5))
def test_the_best_of_a_stream_against_a_full_sort(
    stream: list[list[float]], k: int, dtype: torch.dtype, gap: int
) -> None:
    best, pairs = TopK(k), []
    for part in stream:
        ids = torch.arange(len(part)) * gap + len(pairs) * gap
        best.add(ids, torch.tensor(part, dtype=dtype))
        pairs += list(zip(part, ids.tolist(), strict=True))
        assert len(best._ids) == len(best._scores) == min(k, len(pairs))  # O(k) is kept between chunks
    expected = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
    found = best.result()
    assert found.ids.tolist() == [one for _, one in expected]
    assert found.scores.tolist() == [score for score, _ in expected]
    assert found.ids.dtype == torch.int64


def test_of_equal_scores_the_lowest_ids_are_kept() -> None:
    best = TopK(3)
    for start in range(0, 100, 7):
        best.add(torch.arange(start, min(start + 7, 100)), torch.ones(min(7, 100 - start)))
    assert best.result().ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_ranked(dtype: torch.dtype) -> None:
    best = TopK(2)
    best.add(torch.arange(4), torch.tensor([1.0, 3.0, 2.0, 3.0], dtype=dtype))
    assert best.result().ids.tolist() == [1, 3]


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


@pytest.mark.parametrize("scores", [torch.zeros(3, 1), torch.zeros(2), torch.tensor(1.0), [1, 2, 3], None])
def test_scores_are_one_number_a_sample(scores: Any) -> None:
    with pytest.raises(UsageError, match=r"for 3 samples; it must return a tensor \(3,\)"):
        check_scores(scores, 3)


# -- streaming -------------------------------------------------------------------------------------------


class Recorder:
    """Stands for a driver: candidates of a pool, and outputs that are made of the inputs."""

    def __init__(self, n: int, row: int = 1, labelled: tuple[int, ...] = (), posterior: int = 0) -> None:
        inputs = torch.arange(n, dtype=torch.float32)[:, None].expand(n, row).clone()
        self.choice_pool = TensorPool(inputs, torch.zeros(n), labelled)
        self.posterior = posterior
        self.shapes: list[int] = []
        self._candidates = Candidates(self.choice_pool)

    def candidates(self, size: int) -> Iterator[torch.Tensor]:
        return self._candidates.chunks(size)

    def infer(self, inputs: torch.Tensor) -> torch.Tensor:
        self.shapes.append(len(inputs))
        outputs = inputs[:, :1].clone()
        return torch.stack([outputs] * self.posterior) if self.posterior else outputs


def streamed(driver: Recorder) -> tuple[list[int], list[float]]:
    ids, outputs = [], []
    for some, out in chunks(driver):  # type: ignore[arg-type]
        assert len(some) == (out.shape[1] if driver.posterior else len(out))
        ids += some.tolist()
        outputs += (out[0] if driver.posterior else out).flatten().tolist()
    return ids, outputs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_MIN_ROWS", 4)
    monkeypatch.setattr(scoring, "_MAX_ROWS", 16)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("posterior", [0, 2])
@pytest.mark.parametrize("n", [*range(20), 32, 33, 47])
def test_chunks_have_one_shape_and_padding_is_dropped(n: int, posterior: int) -> None:
    driver = Recorder(n, posterior=posterior)
    ids, outputs = streamed(driver)
    assert ids == list(range(n))
    assert outputs == [float(one) for one in range(n)]
    assert len(set(driver.shapes)) <= 1
    assert all(shape & (shape - 1) == 0 and shape <= 16 for shape in driver.shapes)
    assert len(driver.shapes) == math.ceil(n / 16)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("row", "rows"), [(1, 16), (2**14, 16), (2**15, 8), (2**15 + 1, 4), (2**18, 4)])
def test_large_rows_make_small_chunks(row: int, rows: int) -> None:
    driver = Recorder(18, row=row)
    assert streamed(driver)[0] == list(range(18))
    assert set(driver.shapes) == {rows}


@pytest.mark.usefixtures("small")
def test_only_candidates_are_scored() -> None:
    driver = Recorder(40, labelled=(0, 7, 39))
    driver._candidates.take([8, 20])
    expected = sorted(set(range(40)) - {0, 7, 39, 8, 20})
    assert streamed(driver) == (expected, [float(one) for one in expected])
    assert set(driver.shapes) == {16}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("k", [0, 1, 5, 60])
def test_top_k_of_a_pool(k: int) -> None:
    driver = Recorder(50, labelled=(49,))
    found = top_k(driver, lambda outputs: (outputs[:, 0] % 5).float(), k)  # type: ignore[arg-type]
    expected = sorted(range(49), key=lambda one: (-(one % 5), one))[:k]
    assert found.ids.tolist() == expected
    assert bool(driver.shapes) == (k > 0)


def test_a_score_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"returned \(9, 1\) for 9 samples"):
        top_k(Recorder(9), lambda outputs: outputs, 3)  # type: ignore[arg-type]


def test_a_pool_that_ran_dry() -> None:
    driver = Recorder(2, labelled=(0, 1))
    assert streamed(driver) == ([], [])
    assert driver.shapes == []


# -- evaluation ------------------------------------------------------------------------------------------


def measured(train: Any, val: Any = None) -> tuple[Any, list[str]]:
    warned: list[str] = []
    driver = SimpleNamespace(
        train_datapool=train,
        val_datapool=val,
        infer=lambda inputs: inputs * 2,
        warn_once=warned.append,
        ordered_batches=lambda pool: BatchLoader(pool, 4, device=torch.device("cpu"), dtype=torch.float32),
    )
    found = evaluate(driver)  # type: ignore[arg-type]
    return found, warned


def pool(n: int) -> TensorPool:
    return TensorPool(torch.arange(float(n))[:, None], torch.arange(n), labelled=range(n))


class WithEvaluation(TensorPool):
    def evaluation(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(9000.0)[:, None], torch.arange(9000)


@pytest.mark.parametrize("train", [pool(3), WithEvaluation(torch.zeros(3, 1), torch.zeros(3))])
def test_a_validation_pool_comes_first(train: Any) -> None:
    found, warned = measured(train, pool(6))
    assert found.on == "validation"
    batches = list(found.batches)
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(6))
    assert torch.cat([outputs for outputs, _ in batches]).flatten().tolist() == [2.0 * one for one in range(6)]
    assert warned == []


def test_then_what_the_pool_says() -> None:
    found, warned = measured(WithEvaluation(torch.zeros(3, 1), torch.zeros(3)))
    assert found.on == "pool"
    batches = list(found.batches)
    assert [len(targets) for _, targets in batches] == [4096, 4096, 808]
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(9000))
    assert all(torch.equal(outputs[:, 0], targets * 2.0) for outputs, targets in batches)
    assert warned == []


def test_then_the_labelled_items_with_a_warning() -> None:
    found, warned = measured(pool(5))
    assert found.on == "train"
    assert torch.cat([targets for _, targets in found.batches]).tolist() == list(range(5))
    assert len(warned) == 1
    assert "the figures are of the training set" in warned[0]
