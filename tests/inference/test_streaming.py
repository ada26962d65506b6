"""The learner sees a pool in chunks of one shape."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.inference import Recorder

from alcore.errors import UsageError
from alcore.inference.streaming import chunk_rows, chunks


def streamed(driver: Recorder) -> tuple[list[int], list[float]]:
    ids, outputs = [], []
    for some, out in chunks(driver):  # type: ignore[arg-type]
        assert len(some) == (out.shape[1] if driver.posterior else len(out))
        ids += some.tolist()
        outputs += (out[0] if driver.posterior else out).flatten().tolist()
    return ids, outputs


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("posterior", [0, 2])
@pytest.mark.parametrize("n", [*range(20), 32, 33, 47])
def test_chunks_have_one_shape_and_padding_is_dropped(n: int, posterior: int) -> None:
    driver = Recorder(n, posterior=posterior)
    ids, outputs = streamed(driver)
    assert ids == list(range(n))
    assert outputs == [float(sample) for sample in range(n)]
    assert len(set(driver.shapes)) <= 1
    assert all(shape & (shape - 1) == 0 and shape <= 16 for shape in driver.shapes)
    assert len(driver.shapes) == math.ceil(n / 16)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("row", "rows"), [(1, 16), (2**16, 16), (2**18, 16), (2**19, 8), (2**19 + 1, 4), (2**20, 4)])
def test_large_rows_make_small_chunks(row: int, rows: int) -> None:
    driver = Recorder(18, row=row)
    assert streamed(driver)[0] == list(range(18))
    assert set(driver.shapes) == {rows}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("samples", "rows"), [(1, 16), (2, 8), (3, 4), (100, 4)])
def test_samples_of_a_posterior_make_smaller_chunks(samples: int, rows: int) -> None:
    driver = Recorder(18, posterior=samples)
    chunk_ids = torch.cat([ids for ids, _ in chunks(driver, samples=samples)])  # type: ignore[arg-type]
    assert chunk_ids.tolist() == list(range(18))
    assert set(driver.shapes) == {rows}


@pytest.mark.parametrize("n", [1, 3, 1000, 1024, 1025, 5000])
def test_passes_over_listed_samples_have_one_size_however_many_are_listed(n: int) -> None:
    driver = Recorder(2**17)
    ids = torch.arange(n) * 7
    chunk_ids = torch.cat([some for some, _ in chunks(driver, ids=ids)])  # type: ignore[arg-type]
    assert torch.equal(chunk_ids, ids)
    assert set(driver.shapes) == {1024}
    assert sum(driver.shapes) < n + 1024


@pytest.mark.usefixtures("small")
def test_only_candidates_are_scored() -> None:
    driver = Recorder(40, labeled=(0, 7, 39))
    driver._candidates.mask([8, 20])
    expected = sorted(set(range(40)) - {0, 7, 39, 8, 20})
    assert streamed(driver) == (expected, [float(sample) for sample in expected])
    assert set(driver.shapes) == {16}


def test_a_pool_that_ran_dry() -> None:
    driver = Recorder(2, labeled=(0, 1))
    assert streamed(driver) == ([], [])
    assert driver.shapes == []


@pytest.mark.usefixtures("small")
def test_nested_inputs_and_outputs() -> None:
    driver = Recorder(19)
    pool = driver.choice_pool
    driver.choice_pool = SimpleNamespace(  # type: ignore[assignment]
        inputs=lambda ids: {"x": pool.inputs(ids), "more": (ids, [pool.inputs(ids).repeat(1, 3)])}
    )
    parts = list(chunks(driver, lambda x: {"a": x["x"], "b": (x["more"][0], x["more"][1][0])}))  # type: ignore[arg-type]
    assert [len(out["a"]) for _, out in parts] == [16, 3]
    assert torch.cat([out["b"][0] for _, out in parts]).tolist() == list(range(19))
    assert [out["b"][1].shape for _, out in parts] == [(16, 3), (3, 3)]


@pytest.mark.parametrize("shape", [(5, 1), (4, 2, 3), (2, 3, 4), ()])
def test_outputs_that_are_not_one_a_sample_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"returned a tensor of shape .* for 4 samples.*inference_fn"):
        list(chunks(Recorder(4), lambda inputs: torch.zeros(shape)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("learner", "shape", "batch", "rows"),
    [
        (torch.nn.Linear(2, 1), (2,), 1, 2**16),  # a cheap learner
        (torch.nn.Identity(), (), 1, 2**16),
        (torch.nn.Linear(1, 1000), (1,), 1, 2**13),  # what it makes of a sample is larger than the sample
        (torch.nn.Linear(1000, 1000), (1000,), 1, 64),  # the more weights, the fewer rows
        (torch.nn.Linear(3000, 3000), (3000,), 1, 32),
        (torch.nn.Linear(3000, 3000), (3000,), 300, 256),  # at least the batch of the training
        (torch.nn.Linear(2, 1), (2**13,), 1, 2**9),  # inputs of 32 KiB
        (torch.nn.Linear(2, 1), (2**20,), 1, 8),  # of 4 MiB
        (torch.nn.Linear(2, 1), (2**24,), 1, 1),  # of 64 MiB
        (torch.nn.Conv2d(1, 8, 3), (1, 28, 28), 1, 2**10),  # images, of 3 KiB
        (torch.nn.Conv2d(1, 8, 3), (1, 2, 2), 1, 2**14),
        (object(), (1,), 1, 2**12),  # nothing is known about it
    ],
)
def test_chunk_rows_by_learner_and_inputs(learner: Any, shape: tuple[int, ...], batch: int, rows: int) -> None:
    driver = SimpleNamespace(learner=learner, batch_size=batch)
    assert chunk_rows(driver, torch.zeros(1).expand(1, *shape)) == rows  # type: ignore[arg-type]
