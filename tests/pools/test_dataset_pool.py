"""A pool of a map-style dataset: what is trained on, what is scored, which answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from alcore_testing import PoolContract, build_driver, toy_loop
from torch.utils.data import Dataset, TensorDataset

from alcore import DataInfo, DatasetPool, Label, UsageError

INPUTS = torch.arange(48.0).reshape(12, 4) / 48
TARGETS = torch.arange(12) % 3


class Images(Dataset):
    """Samples that are read one by one, and counted."""

    def __init__(self, answers: bool = True, targets: Any = None) -> None:
        self.answers, self.read = answers, []
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return (INPUTS[index], int(TARGETS[index])) if self.answers else INPUTS[index]


def noise(one: torch.Tensor) -> torch.Tensor:
    return one + torch.rand(4)


class TestPlain(PoolContract):
    def make(self) -> DatasetPool:
        return DatasetPool(TensorDataset(INPUTS, TARGETS), labeled=[4, 1, 0])


class TestAugmented(PoolContract):
    augments = True

    def make(self) -> DatasetPool:
        return DatasetPool(Images(), [4, 1, 0], transform=noise, plain_transform=lambda one: one * 2)


class TestAnswersOnDemand(PoolContract):
    def make(self) -> DatasetPool:
        return DatasetPool(Images(), [4, 1, 0], info=DataInfo("classification", 3, 4, (4,)))


class TestUnknownAnswers(PoolContract):
    def make(self) -> DatasetPool:
        pool = DatasetPool(Images(answers=False), info=DataInfo("classification", 3, 4, (4,)))
        for sample in (4, 1, 0):
            pool.append(Label(sample, int(TARGETS[sample])))
        return pool


def test_training_gets_transformed_inputs_and_everything_else_plain_ones() -> None:
    pool = DatasetPool(Images(), [3], transform=lambda one: one + 100, plain_transform=lambda one: one + 1)
    assert torch.equal(pool[0][0], INPUTS[3] + 100)
    assert torch.equal(pool.plain[0][0], INPUTS[3] + 1)
    assert torch.equal(pool.inputs(torch.tensor([3, 5])), INPUTS[[3, 5]] + 1)
    assert torch.equal(pool.answer(5)[0], INPUTS[5] + 1)
    assert pool[0][1] == pool.plain[0][1] == pool.answer(3)[1] == 0


@pytest.mark.parametrize("way", ["attribute", "argument"])
def test_listed_targets_are_used_without_reading_samples(way: str) -> None:
    data = Images(targets=TARGETS.tolist() if way == "attribute" else None)
    pool = DatasetPool(data, range(6), targets=None if way == "attribute" else TARGETS)
    assert pool.info == DataInfo("classification", 3, 4, (4,))
    assert set(data.read) <= {0}
    pool.append(8)
    assert pool[6][1] == TARGETS[8]
    assert set(data.read) == {0, 8}


def test_targets_that_nobody_lists_are_read_once_or_with_an_info_when_they_are_needed() -> None:
    assert DatasetPool(Images(), [0]).info == DataInfo("classification", 3, 4, (4,))
    data = Images()
    pool = DatasetPool(data, [2], info=DataInfo("classification", 3, 4, (4,)))
    assert set(data.read) <= {0, 2}
    pool.append(7)
    assert set(data.read) <= {0, 2, 7}
    assert [int(target) for _, target in pool.plain] == [2, 1]


def test_bought_label_takes_precedence_over_the_datasets_own() -> None:
    pool = DatasetPool(Images())
    pool.append(Label(4, 0))
    assert (int(TARGETS[4]), int(pool[0][1])) == (1, 0)
    assert pool.check(3) is not None


def test_pool_without_answers_wants_values() -> None:
    pool = DatasetPool(Images(answers=False))
    assert not pool.knows_answers
    with pytest.raises(UsageError, match=r"alcore\.Label\(id, value\)"):
        pool.append(3)
    pool.append(Label(3, 2))
    assert int(pool[0][1]) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DatasetPool(iter([1])), "not a map-style dataset"),
        (lambda: DatasetPool([]), "list has no sample"),
        (lambda: DatasetPool(Images(), [12]), "no sample 12; ids go from 0 to 11"),
        (lambda: DatasetPool(Images(), [1, 1]), "sample 1 is labeled already"),
        (lambda: DatasetPool(Images(), torch.arange(12) < 1), r"a mask; its ids are mask\.nonzero\(\)"),
        (lambda: DatasetPool(Images(), [0.5]), "fractional numbers"),
        (lambda: DatasetPool([(INPUTS[0], "cat"), (INPUTS[1], "dog")]), "for instance a str; a target is a number"),
        (lambda: DatasetPool([(INPUTS[0], {"box": 1})]), "for instance a dict"),
        (lambda: DatasetPool([(INPUTS[0], INPUTS[0]), (INPUTS[1], INPUTS[1, :2])]), "of the same shape"),
        (lambda: DatasetPool(Images(), targets=TARGETS[:4]), "12 samples but 4 targets"),
        (lambda: DatasetPool(Images(), costs=[1.0]), "12 inputs but 1 costs"),
        (lambda: DatasetPool([(object(), 1)]), "type object.*plain_transform"),
        (lambda: DatasetPool(Images()).append((INPUTS[0], 1)), "can't append tuple"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_targets_are_those_after_the_target_transform_of_the_dataset() -> None:
    class Turned(Images):
        target_transform = staticmethod(lambda target: 2 - target)

        def __getitem__(self, index: int) -> Any:
            return INPUTS[index], self.target_transform(int(TARGETS[index]))

    pool = DatasetPool(Turned(targets=TARGETS.tolist()), [0, 1])
    assert [int(pool[0][1]), int(pool[1][1]), int(pool.answer(5)[1])] == [2, 1, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_run_trains_on_augmented_items_and_measures_plain_ones(tmp_path: Path, workers: int) -> None:
    seen: list[torch.Tensor] = []

    def loop(model: Any, **arguments: Any) -> None:
        seen.extend(batch[0] for batch in arguments["train_dataloader"])
        toy_loop(model, **arguments)

    def run(folder: str) -> Any:
        seen.clear()
        torch.manual_seed(0)
        pool = DatasetPool(Images(), [0, 1, 2], transform=noise)
        net = torch.nn.Linear(4, 3)
        torch.nn.init.zeros_(net.weight)
        settings = {"num_dataloader_workers": workers, "max_active_learning_steps": 2}
        driver = build_driver(tmp_path / folder, pool=pool, learner=net, loop=loop, **settings)
        driver.run()
        return driver, torch.cat(seen)

    (one, first), (other, second) = run("one"), run("other")
    assert one.train_datapool.digest() == other.train_datapool.digest()
    assert torch.equal(first, second), "augmentation follows the seed"
    assert not torch.isin(first, INPUTS).all()
    measured = torch.cat([inputs for inputs, _ in one.ordered_batches(one.train_datapool)])
    assert torch.equal(measured, INPUTS[one.train_datapool.labeled_ids])


@pytest.mark.parametrize(
    "sample",
    [(torch.zeros(2), 1, 7), [torch.zeros(2)], {"image": torch.zeros(2), "label": 1}, {"x": torch.zeros(2), "Y": 0}],
    ids=["triple", "single", "label", "y"],
)
def test_sample_with_its_answer_in_the_input_is_refused(sample: Any) -> None:
    with pytest.raises(UsageError, match="not given the answer"):
        DatasetPool([sample] * 4)
