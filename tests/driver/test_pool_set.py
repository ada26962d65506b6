"""Which pool is chosen from, and what the pools say of the data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore import TensorPool
from alcore.driver.pool_set import InputCheck, PoolSet
from alcore.protocols import DataInfo

INFO = DataInfo("classification", 2, 1, (1,))
OTHER = DataInfo("regression", 0, 1, (1,))


def knowing(info: Any) -> Any:
    return SimpleNamespace(info=info)


def test_samples_are_chosen_from_the_unlabeled_pool_else_from_the_training_pool() -> None:
    train, unlabeled = object(), object()
    assert PoolSet(train, None, unlabeled).choice is unlabeled
    assert PoolSet(train, None, None).choice is train
    assert PoolSet(None, None, None).choice is None


def test_empty_unlabeled_pool_is_chosen_from() -> None:
    empty: list[int] = []
    assert PoolSet([1], None, empty).choice is empty


@pytest.mark.parametrize(
    ("train", "unlabeled", "expected"),
    [
        (knowing(INFO), knowing(OTHER), INFO),
        (knowing(None), knowing(OTHER), OTHER),
        (object(), knowing(OTHER), OTHER),
        (None, knowing(OTHER), OTHER),
        (knowing("classification"), None, None),
        (object(), None, None),
    ],
)
def test_info_is_that_of_the_training_pool_else_of_the_pool_to_choose_from(
    train: Any, unlabeled: Any, expected: DataInfo | None
) -> None:
    assert PoolSet(train, knowing(INFO), unlabeled).info is expected


def test_choosable_is_asked_of_the_pool_to_choose_from() -> None:
    pool = TensorPool(torch.zeros(4, 1))
    assert PoolSet([1], None, pool).choosable
    assert not PoolSet(pool, None, [1]).choosable


def test_identified_pools_are_those_that_labels_come_from_and_go_to() -> None:
    train, held_out, unlabeled = object(), object(), object()
    assert PoolSet(train, held_out, unlabeled).identified() == {"train": train, "unlabeled": unlabeled}
    assert PoolSet(None, held_out, unlabeled).identified() == {"unlabeled": unlabeled}


def test_generated_input_is_compared_with_an_input_of_a_pool_that_lists_windows_alone() -> None:
    class InWindows:
        total = 10**6

        def __len__(self) -> int:
            return 0

        def unlabeled_indices(self, start: int, stop: int) -> torch.Tensor:
            return torch.arange(max(start, 900_000), max(stop, 900_000))

        def inputs(self, ids: torch.Tensor) -> torch.Tensor:
            assert ids.tolist() == [900_000]
            return ids[:, None].float()

    check = InputCheck(PoolSet(InWindows(), None, None))
    assert check(torch.zeros(1)) is None
    assert "of shape (1, 1)" in str(check(torch.zeros(1, 1)))
