"""Metrology sees what there is to measure on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alcore_testing import rows_at_once

from alcore.distributed.ranks import Ranks
from alcore.errors import UsageError
from alcore.inference.evaluation import evaluate
from alcore.pools import DataInfo, TensorPool
from alcore.pools.candidates import Candidates
from alcore.training.loader import BatchLoader


def measured(
    train: Any, val: Any = None, on: Any = None, choice: Any = None, info: Any = None
) -> tuple[Any, list[str]]:
    warned: list[str] = []
    driver = SimpleNamespace(
        ranks=Ranks(),
        train_datapool=train,
        val_datapool=val,
        choice_pool=choice or train,
        candidates=Candidates(choice or train).chunks,
        infer=lambda inputs: inputs * 2,
        info=info,
        warn_once=lambda message, *values: warned.append(message % values if values else message),
        ordered_batches=lambda pool: BatchLoader(pool, 4, device=torch.device("cpu"), dtype=torch.float32),
    )
    evaluation = evaluate(driver, on)  # type: ignore[arg-type]
    return evaluation, warned


def pool(n: int) -> TensorPool:
    return TensorPool(torch.arange(float(n))[:, None], torch.arange(n), labeled=range(n))


class WithEvaluation(TensorPool):
    def evaluation(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(9000.0)[:, None], torch.arange(9000)


@pytest.mark.parametrize("train", [pool(3), WithEvaluation(torch.zeros(3, 1), torch.zeros(3))])
def test_a_validation_pool_comes_first(train: Any) -> None:
    found, warned = measured(train, pool(50))
    assert found.on == "validation"
    batches = list(found.batches)
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(50))
    assert torch.cat([outputs for outputs, _ in batches]).flatten().tolist() == [2.0 * number for number in range(50)]
    assert warned == []


class WithSmallEvaluation(TensorPool):
    def evaluation(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(16.0)[:, None], torch.arange(16)


@pytest.mark.parametrize(
    ("task", "interval"),
    [
        ("classification", "the 95% interval of an accuracy reaches up to 24 percentage points"),  # 1.96 / (2 * 4)
        ("regression", "the 95% interval of an RMSE reaches about 35%"),  # 1.96 / sqrt(32)
    ],
)
@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ((pool(3), pool(16)), "16 held-out samples"),
        ((WithSmallEvaluation(torch.zeros(3, 1), torch.zeros(3)),), "16 samples of the pool"),
    ],
)
def test_few_samples_to_measure_on_are_warned_of_with_their_number(
    parts: Any, what: str, task: Any, interval: str
) -> None:
    _, warned = measured(*parts, info=DataInfo(task, 2 * (task == "classification"), 1))
    assert len(warned) == 1
    assert f"measures on {what}, which are few" in warned[0]
    assert f"{interval} to each side" in warned[0]


def test_validation_pool_without_labels_is_not_measured_on() -> None:
    found, warned = measured(pool(3), TensorPool(torch.zeros(4, 1), torch.zeros(4)))
    assert found.on == "train"
    assert len(warned) == 1
    assert "the validation pool is empty" in warned[0]


def test_evaluation_of_the_pool_is_used_without_validation_pool() -> None:
    found, warned = measured(WithEvaluation(torch.zeros(3, 1), torch.zeros(3)))
    assert found.on == "pool"
    batches = list(found.batches)
    assert [len(targets) for _, targets in batches] == [4096, 4096, 808]
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(9000))
    assert all(torch.equal(outputs[:, 0], targets * 2.0) for outputs, targets in batches)
    assert warned == []


def test_labeled_items_are_evaluated_last_with_a_warning() -> None:
    found, warned = measured(pool(5))
    assert found.on == "train"
    assert torch.cat([targets for _, targets in found.batches]).tolist() == list(range(5))
    assert len(warned) == 1
    assert "its results are those of the training set" in warned[0]


@pytest.mark.parametrize(
    ("on", "expected"), [("validation", range(50)), ("pool", range(9000)), ("train", [4, 1]), ("unlabeled", [0, 2, 3])]
)
def test_what_is_measured_on_can_be_chosen(on: str, expected: Any) -> None:
    train = WithEvaluation(torch.arange(5.0)[:, None], torch.arange(5), labeled=[4, 1])
    found, warned = measured(train, pool(50), on)
    assert found.on == on
    batches = list(found.batches)
    assert torch.cat([targets for _, targets in batches]).tolist() == list(expected)
    assert all(torch.equal(outputs[:, 0], targets * 2.0) for outputs, targets in batches)
    assert warned == []


def test_unlabeled_samples_come_in_chunks_from_the_pool_to_choose_from() -> None:
    choice = TensorPool(torch.arange(10.0)[:, None], torch.arange(10) * 3, labeled=[2])
    with rows_at_once(4):
        batches = list(measured(pool(3), None, "unlabeled", choice)[0].batches)
    assert [targets.tolist() for _, targets in batches] == [[0, 3, 9, 12], [15, 18, 21, 24], [27]]
    assert [outputs[:, 0].tolist() for outputs, _ in batches] == [[0, 2, 6, 8], [10, 12, 14, 16], [18]]


def test_unlabeled_samples_that_have_run_out_are_no_batch() -> None:
    assert list(measured(pool(3), None, "unlabeled")[0].batches) == []


class WithoutAnswers(TensorPool):
    answer = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("train", "on", "words"),
    [
        (pool(3), "validation", "no validation pool"),
        (pool(3), "pool", r"no evaluation\(\)"),
        (TensorPool(torch.zeros(3, 1)), "unlabeled", "doesn't know the answers"),
        (WithoutAnswers(torch.zeros(3, 1), torch.zeros(3)), "unlabeled", "and their answers"),
        (pool(3), "held-out", "'held-out'; it must be one of validation, pool, train, unlabeled"),
    ],
    ids=["no validation pool", "no evaluation", "no targets", "no answer", "unknown word"],
)
def test_what_there_is_not_is_refused(train: Any, on: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measured(train, None, on)


def test_targets_come_on_the_device_of_the_outputs() -> None:
    driver: Any = SimpleNamespace(
        ranks=Ranks(),
        train_datapool=WithEvaluation(torch.zeros(3, 1), torch.zeros(3)),
        val_datapool=None,
        infer=lambda inputs: inputs.to("meta"),
    )
    assert {targets.device.type for _, targets in evaluate(driver).batches} == {"meta"}
