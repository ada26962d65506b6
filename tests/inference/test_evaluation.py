"""Metrology sees what there is to measure on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore.distributed.ranks import Ranks
from alcore.inference.evaluation import evaluate
from alcore.pools import TensorPool
from alcore.training.loader import BatchLoader


def measured(train: Any, val: Any = None) -> tuple[Any, list[str]]:
    warned: list[str] = []
    driver = SimpleNamespace(
        ranks=Ranks(),
        train_datapool=train,
        val_datapool=val,
        infer=lambda inputs: inputs * 2,
        warn_once=warned.append,
        ordered_batches=lambda pool: BatchLoader(pool, 4, device=torch.device("cpu"), dtype=torch.float32),
    )
    found = evaluate(driver)  # type: ignore[arg-type]
    return found, warned


def pool(n: int) -> TensorPool:
    return TensorPool(torch.arange(float(n))[:, None], torch.arange(n), labeled=range(n))


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


def test_targets_come_on_the_device_of_the_outputs() -> None:
    driver: Any = SimpleNamespace(
        ranks=Ranks(),
        train_datapool=WithEvaluation(torch.zeros(3, 1), torch.zeros(3)),
        val_datapool=None,
        infer=lambda inputs: inputs.to("meta"),
    )
    assert {targets.device.type for _, targets in evaluate(driver).batches} == {"meta"}
