"""Pools with one fault each, and the contract test that each fails."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from alcore_testing import PoolContract, toy_pool

from alcore import Data, DataInfo, Label, TensorPool
from alcore.pools import as_sample_id

_check_data = PoolContract._conditional["test_data_says_what_its_samples_are"][0]


class TestTensorPool(PoolContract):
    def make(self) -> Any:
        return toy_pool("classes")


class TestRegression(PoolContract):
    def make(self) -> Any:
        return toy_pool("values")


class TestMemoryMapped(PoolContract):
    @pytest.fixture(autouse=True)
    def _write(self, tmp_path: Any) -> None:
        self._file = tmp_path / "inputs.npy"
        np.save(self._file, toy_pool("binary").inputs(torch.arange(40)).numpy())

    def make(self) -> Any:
        return TensorPool(np.load(self._file, mmap_mode="r"), torch.arange(40) % 2, labeled=[3, 20, 7])


class TestData(PoolContract):
    def data(self) -> Data:
        return Data(toy_pool("classes"))

    def test_data_says_what_its_samples_are(self) -> None:
        """It has no name here, and says all the same what its samples are, by its pool."""
        _check_data(self)


class Blind(TensorPool):
    """Knows the answers of its first six samples alone."""

    @property
    def knows_answers(self) -> bool:
        return False

    def append(self, item: Any) -> None:
        assert isinstance(item, Label), item
        super().append(item)


class TestLabelsFromOutside(PoolContract):
    def make(self) -> Any:
        whole = toy_pool("binary")
        return Blind(whole.inputs(torch.arange(40)), torch.zeros(40, dtype=torch.int64), labeled=[3, 20, 7])


class InWindows:
    """A pool that lists its ids in windows alone, offers a part in each step, and has no digest."""

    total = 40

    def __init__(self) -> None:
        self._pool = toy_pool("classes")
        self.info, self.labeled_ids = self._pool.info, self._pool.labeled_ids

    def __len__(self) -> int:
        return len(self._pool)

    def __getitem__(self, index: int) -> Any:
        return self._pool[index]

    def append(self, item: Any) -> None:
        self._pool.append(item)

    def unlabeled_indices(self, start: int, stop: int) -> torch.Tensor:
        return self._pool.unlabeled_indices(start, stop)

    def inputs(self, ids: torch.Tensor) -> Any:
        return self._pool.inputs(ids)

    def step_range(self, step: int) -> tuple[int, int]:
        return step % 2 * 20, step % 2 * 20 + 20

    def cost(self, sample: int) -> float:
        return 1.0 + sample

    def costs_of(self, samples: torch.Tensor) -> torch.Tensor:
        return 1.0 + samples.double()


class TestListedInWindows(PoolContract):
    def make(self) -> Any:
        return InWindows()

    def generated(self, pool: Any) -> list[Any]:
        return [torch.zeros(4)]


class Mutant(TensorPool):
    test, words = "", ""


class SaysNothingOfItself(Mutant):
    """What it calls its info is a dict."""

    test, words = "test_pool_has_the_methods_of_its_protocols", "isinstance"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.info: Any = {"classes": 3}


class IsMadeAnew(Mutant):
    """Made again, it holds other samples."""

    test, words = "test_pool_made_twice_is_equal", "assert"
    made = itertools.count()

    def __init__(self, inputs: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(inputs + next(self.made), *args, **kwargs)


class AugmentsPlainItems(Mutant):
    """What is to be plain is augmented."""

    test, words = "test_plain_items_are_the_labeled_ones_without_augmentation", "assert"

    @property
    def plain(self) -> Any:
        return [(self[place][0] + 1, self[place][1]) for place in range(len(self))]


class InsertsInFront(Mutant):
    """What is appended comes first."""

    test, words = "test_appended_sample_is_labeled", "assert"

    def _mark(self, sample: int) -> None:
        super()._mark(sample)
        self._ids.insert(0, self._ids.pop())


class StillListsIt(Mutant):
    """A sample that was appended is still unlabeled."""

    test, words = "test_appended_sample_is_labeled", "assert"

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        indices = super().unlabeled_indices(start, stop)
        last = torch.tensor(self._ids[6:], dtype=torch.int64)
        return torch.cat([indices, last]).sort().values


class DigestsInputsAlone(Mutant):
    """What is labeled makes no difference to its digest."""

    test, words = "test_appended_sample_is_labeled", "assert"

    def digest(self) -> str:
        return f"{len(self._inputs)} samples"


class TakesASampleTwice(Mutant):
    """A sample that is labeled already is appended again."""

    test, words = "test_refused_append_changes_nothing", "DID NOT RAISE"

    def append(self, item: Any) -> None:
        if (sample := as_sample_id(item)) in self._ids and sample is not None:
            self._ids.append(sample)
            return
        super().append(item)


class CountsFromTheEnd(Mutant):
    """Sample -1 is the last one."""

    test, words = "test_refused_append_changes_nothing", "DID NOT RAISE"

    def append(self, item: Any) -> None:
        super().append(39 if item == -1 else item)


class ListsIdsInAnyOrder(Mutant):
    """Unlabeled ids come in the order of a set."""

    test, words = "test_unlabeled_ids_ascend", "assert"

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return super().unlabeled_indices(start, stop).flip(0)


class ForgetsWhereTheWindowBegins(Mutant):
    """Ids of a window are counted from its start."""

    test, words = "test_windows_hold_all_unlabeled_ids", "windows of"

    def unlabeled_indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return super().unlabeled_indices(start, stop) - start


class SortsTheIds(Mutant):
    """Inputs come in the order of the pool, each once."""

    test, words = "test_inputs_are_one_row_an_id", "Error"

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        return super().inputs(torch.unique(ids))


class StandardizesTheBatch(Mutant):
    """Inputs are centered by what they are asked for with."""

    test, words = "test_inputs_are_one_row_an_id", "assert"

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        rows = super().inputs(ids)
        return rows - rows.mean(dim=0)


class Augments(Mutant):
    """Inputs are noisy."""

    test, words = "test_inputs_are_copies_and_never_augmented", "global generators"

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        return super().inputs(ids) + 0.01 * torch.randn(len(ids), 1)


class GivesItsOwnRows(Mutant):
    """Inputs are a view of the pool's own."""

    test, words = "test_inputs_are_copies_and_never_augmented", "assert"

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        assert isinstance(self._inputs, torch.Tensor)
        return self._inputs[int(ids[0]) : int(ids[-1]) + 1]


class SortsIdsInPlace(Mutant):
    """Ids are sorted where they are, since a file is read faster in its order."""

    test, words = "test_what_it_is_given_is_not_written_to", "wrote to the ids"

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        order = ids.argsort()
        rows = super().inputs(ids.copy_(ids[order]))
        back = torch.empty_like(rows)
        back[order] = rows
        return back


class BatchesById(Mutant):
    """A batch is of these samples, not of these positions."""

    test, words = "test_batch_equals_items", "assert"

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs(positions), torch.stack([self.answer(sample)[1] for sample in positions.tolist()])


class OffersMoreThanItHas(Mutant):
    """The last part of its ids ends behind the last sample."""

    test, words = "test_step_offers_a_part_of_its_ids", "of 40 samples"

    def step_range(self, step: int) -> tuple[int, int]:
        return step * 16, step * 16 + 16


class OffersWhatIsLeft(Mutant):
    """The part of a step begins where the last label was."""

    test, words = "test_step_offers_a_part_of_its_ids", "has several ranges"

    def step_range(self, step: int) -> tuple[int, int]:
        return len(self) % 30, 40


class HasCostsOfSingleSamples(Mutant):
    """Costs of many are in the order of the ids."""

    test, words = "test_costs_of_many_are_those_of_each", "costs_of() ["

    def cost(self, sample: int) -> float:
        return float(sample)

    def costs_of(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.sort().values.double()


class HasCostsOfAnotherType(Mutant):
    """Costs of many are float32."""

    test, words = "test_costs_of_many_are_those_of_each", "torch.float32"

    def costs_of(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.float()


class RefusesWhatItTakes(Mutant):
    """An input that it would take as a label's is refused."""

    test, words = "test_generated_inputs_are_like_its_own", "all zeros"

    def check_input(self, item: Any) -> str | None:
        return None if item.any() else "all zeros"


class MakesBatchesOfGeneratedInputs(Mutant):
    """A generated input is made a batch of one."""

    test, words = "test_generated_inputs_are_like_its_own", "it has the shapes [(1, 4)]"

    def as_input(self, item: Any) -> Any:
        return item[None]


class AsksMoneyBack(Mutant):
    """The label of a generated input costs less than nothing."""

    test, words = "test_generated_inputs_are_like_its_own", "input_cost() is -1"

    def input_cost(self, item: Any) -> float:
        return -1.0


class NamesAnObjectAsFidelity(Mutant):
    """The fidelity of a generated input can't be stored."""

    test, words = "test_generated_inputs_are_like_its_own", "TypeError"

    def input_fidelity(self, item: Any) -> Any:
        return torch.float64


class IsMeasuredOnNothing(Mutant):
    """It has an evaluation, of no samples."""

    test, words = "test_evaluation_has_a_target_for_each_input", "assert"

    def evaluation(self) -> Any:
        return self.inputs(torch.arange(0)), torch.arange(0)


class RemembersOtherRuns(Mutant):
    """What other objects were labeled with is labeled here too."""

    test, words = "test_resumed_run_equals_uninterrupted_run", "it differs from the run without a break"
    appended = itertools.count()

    def append(self, item: Any) -> None:
        super().append(item)
        assert isinstance(self._inputs, torch.Tensor)
        self._inputs[int(item)] += next(self.appended)


MUTANTS: list[Any] = Mutant.__subclasses__()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_contract_finds_the_mutant(mutant: Any, check_mutant: Any) -> None:
    def make(self: PoolContract) -> Any:
        whole = toy_pool("classes")
        return mutant(whole.inputs(torch.arange(40)), torch.arange(40) % 3, labeled=[3, 20, 7, 11, 30, 14])

    check_mutant(PoolContract, mutant, make, generated=lambda _self, _pool: [torch.zeros(4)])


def test_each_test_has_a_mutant(check_each_test_has_a_mutant: Any) -> None:
    check_each_test_has_a_mutant(PoolContract, [*MUTANTS, _Silent])


class _Silent:
    """A pool that doesn't say what its samples are."""

    test = "test_data_says_what_its_samples_are"

    def __init__(self) -> None:
        self._pool = toy_pool("classes")

    def __len__(self) -> int:
        return len(self._pool)

    def __getitem__(self, index: int) -> Any:
        return self._pool[index]

    def append(self, item: Any) -> None:
        self._pool.append(item)

    def unlabeled_indices(self) -> torch.Tensor:
        return self._pool.unlabeled_indices()

    def inputs(self, ids: torch.Tensor) -> Any:
        return self._pool.inputs(ids)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: Data(_Silent()), "so that no learner can be made for them"),
        (lambda: toy_pool("classes"), "not a TensorPool"),
        (lambda: Data(_Silent(), info={"classes": 3}), "not a dict"),  # type: ignore[arg-type]
        (lambda: Data(_Silent(), info=DataInfo("classification", 0, 4, (4,))), "0 classes in a classification"),
        (lambda: Data(_Silent(), info=DataInfo("regression", 3, 4, (4,))), "3 classes in a regression"),
        (lambda: Data(_Silent(), info=DataInfo("classification", 1, 4, (4,))), "1 classes"),
        (lambda: Data(_Silent(), info=DataInfo("classification", 3, 5)), "has the shape (5,), and it has (4,)"),
        (lambda: Data(_Silent(), info=DataInfo("classification", 3, 4, (2, 2))), "has the shape (2, 2)"),
        (lambda: Data(toy_pool("classes"), info=DataInfo("classification", 2, 4, (4,))), "classes is 2 in Data.info"),
    ],
)
def test_contract_finds_data_that_does_not_say_what_its_samples_are(data: Any, words: str) -> None:
    contract = type("Claimed", (PoolContract,), {"data": lambda _self: data(), "name": "mine"})
    with pytest.raises(AssertionError, match=re.escape(words)):
        contract().test_data_says_what_its_samples_are()  # type: ignore[attr-defined]
