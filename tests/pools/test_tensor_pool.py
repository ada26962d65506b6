"""Pools in memory and on disk: what is labeled, what is not, and what a label may be."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.pools import DataInfo, TensorPool, as_sample_id, is_choosable, pool_digest
from alcore.protocols import Label

Form = Callable[[torch.Tensor], Any]


@pytest.fixture(params=["tensor", "array", "memmap"])
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Form:
    """Bring rows into one of the forms that a pool takes."""

    def mapped(rows: torch.Tensor) -> np.ndarray[Any, Any]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, rows.numpy())
        return np.load(path, mmap_mode="r")

    return {"tensor": lambda rows: rows, "array": lambda rows: rows.numpy(), "memmap": mapped}[request.param]


INPUTS = torch.arange(20.0).reshape(10, 2)
TARGETS = torch.arange(10) % 3


# -- what is labeled ------------------------------------------------------------------------------------


def test_rows_come_in_training_order(form: Form) -> None:
    pool = TensorPool(form(INPUTS), form(TARGETS), labeled=[7, 2])
    pool.append(5)
    assert (len(pool), pool.total) == (3, 10)
    assert pool.labeled_ids.tolist() == [7, 2, 5]
    inputs, targets = pool.batch(torch.tensor([2, 0, 2]))
    assert torch.equal(inputs, INPUTS[[5, 7, 5]])
    assert torch.equal(targets, TARGETS[[5, 7, 5]])
    assert torch.equal(pool[1][0], INPUTS[2])
    assert pool[-1][1] == TARGETS[5]
    assert torch.equal(pool.answer(9)[0], INPUTS[9])
    with pytest.raises(IndexError):
        pool[3]


def test_inputs_are_copies_of_any_rows(form: Form) -> None:
    rows = form(INPUTS.clone())
    pool = TensorPool(rows, form(TARGETS))
    copies = pool.inputs(torch.tensor([9, 0]))
    assert torch.equal(copies, INPUTS[[9, 0]])
    copies.zero_()
    assert np.asarray(rows).tolist() == INPUTS.tolist()
    assert pool.inputs(torch.empty(0, dtype=torch.int64)).shape == (0, 2)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_labeled_ids_are_given_in_any_form(kind: Any) -> None:
    assert TensorPool(INPUTS, TARGETS, labeled=kind([3, 1])).labeled_ids.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("labeled", "what"),
    [([10], "no sample 10; ids go from 0 to 9"), ([-1], "no sample -1"), ([3, 3], "sample 3 is labeled already")],
)
def test_wrong_ids_are_refused(labeled: list[int], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        TensorPool(INPUTS, TARGETS, labeled=labeled)
    pool = TensorPool(INPUTS, TARGETS)
    for sample in labeled[:-1]:
        pool.append(sample)
    with pytest.raises(UsageError, match=what):
        pool.append(labeled[-1])
    assert len(pool) == len(labeled) - 1


def test_inputs_and_targets_go_together() -> None:
    with pytest.raises(UsageError, match="10 inputs but 9 targets"):
        TensorPool(INPUTS, TARGETS[:9])


@given(st.integers(0, 40), st.data())
def test_windows_of_unlabeled_ids_against_a_set(n: int, data: st.DataObject) -> None:
    labeled = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n)) if n else []
    pool = TensorPool(torch.zeros(n, 1), torch.zeros(n), labeled=labeled)
    start, stop = data.draw(st.integers(0, n + 3)), data.draw(st.one_of(st.none(), st.integers(0, n + 3)))
    expected = sorted(set(range(start, n if stop is None else min(stop, n))) - set(labeled))
    ids = pool.unlabeled_indices(start, stop)
    assert ids.tolist() == expected
    assert ids.dtype == torch.int64
    assert pool.unlabeled_indices().tolist() == sorted(set(range(n)) - set(labeled))


class Watched(np.memmap[Any, Any]):
    """Counts the rows that are read."""

    read = 0

    def __getitem__(self, key: Any) -> Any:
        rows = super().__getitem__(key)
        type(self).read += len(np.atleast_1d(rows)) if self.ndim == 2 else 0
        return rows

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the whole array was loaded")


def test_a_memory_mapped_pool_never_loads_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10_000, 3), np.float32))
    rows = np.load(tmp_path / "x.npy", mmap_mode="r").view(Watched)
    Watched.read = 0
    pool = TensorPool(rows, torch.zeros(10_000, dtype=torch.int64), labeled=[1, 2])
    pool.append(3)
    pool.batch(torch.tensor([0, 2]))
    pool.inputs(torch.tensor([5, 9_999]))
    pool.unlabeled_indices(100, 200)
    assert Watched.read == 4
    assert type(pool.inputs(torch.tensor([1]))) is torch.Tensor


# -- types -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float16, torch.int64])
def test_types_are_kept(form: Form, dtype: torch.dtype) -> None:
    pool = TensorPool(form(INPUTS.to(dtype)), form((TARGETS > 0).to(dtype)), labeled=[1])
    pool.append(Label(2, 1))
    pool.append(3)
    inputs, targets = pool.batch(torch.arange(3))
    assert inputs.dtype == targets.dtype == dtype
    assert targets.tolist() == [1, 1, 0]


def test_a_read_only_array_gives_no_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", TARGETS.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorPool(INPUTS, np.load(tmp_path / "y.npy", mmap_mode="r"))


def test_labels_do_not_write_into_the_callers_targets(form: Form) -> None:
    targets = form(TARGETS.clone())
    pool = TensorPool(form(INPUTS), targets)
    for sample in (1, 4):
        pool.append(Label(sample, 0))
    assert pool.batch(torch.arange(2))[1].tolist() == [0, 0]
    assert np.asarray(targets).tolist() == TARGETS.tolist()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (TARGETS, ("classification", 3)),
        (TARGETS % 1, ("classification", 2)),
        (TARGETS > 0, ("classification", 2)),
        (TARGETS * 1.0, ("regression", 0)),
    ],
)
def test_info_is_inferred_from_the_arrays(targets: Any, expected: tuple[str, int]) -> None:
    info = TensorPool(INPUTS, targets).info
    assert info is not None
    assert (info.task, info.classes) == expected
    assert (info.features, info.shape) == (2, (2,))
    image = TensorPool(torch.zeros(3, 4, 5), torch.zeros(3)).info
    assert image is not None
    assert image.shape == (4, 5)


def test_task_of_a_pool_without_targets_is_not_guessed() -> None:
    pool = TensorPool(INPUTS)
    assert pool.info is None
    assert pool.check(20.5) is None
    pool.append(Label(1, 0.5))
    assert pool.batch(torch.arange(1))[1].tolist() == [0.5]
    said = DataInfo("regression")
    assert TensorPool(INPUTS, info=said).info is said


def test_given_info_is_kept() -> None:
    said = DataInfo("classification", 4, 2, (2,), ("a", "b", "c", "d"))
    pool = TensorPool(INPUTS, TARGETS, info=said)
    pool.append(Label(1, 3))
    assert pool.info is said
    open_pool = TensorPool(INPUTS, info=said)
    open_pool.append(Label(1, 3))
    assert open_pool.info == said


# -- what is appended ------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [4, np.int64(4), np.array(4), torch.tensor(4)])
def test_a_sample_id_is_labeled_by_the_pool(item: Any) -> None:
    pool = TensorPool(INPUTS, TARGETS)
    pool.append(item)
    assert pool.labeled_ids.tolist() == [4]
    assert pool[0][1] == TARGETS[4]


@pytest.mark.parametrize("item", [4, np.int64(4), torch.tensor(4)])
@pytest.mark.parametrize("value", [2, torch.tensor(2), np.int32(2)])
def test_a_label_brings_its_value(item: Any, value: Any) -> None:
    pool = TensorPool(INPUTS, TARGETS)
    pool.append(Label(item, value))
    assert pool.labeled_ids.tolist() == [4]
    assert pool[0][1] == 2
    assert pool[0][1].dtype == torch.int64


@pytest.mark.parametrize("item", [(torch.ones(2), 2), [np.ones(2), 2], Label([1.0, 1.0], 2)])
def test_a_new_input_is_a_new_sample(item: Any) -> None:
    pool = TensorPool(INPUTS, TARGETS, labeled=[1])
    pool.append(item)
    assert (pool.total, len(pool)) == (11, 2)
    assert pool.labeled_ids.tolist() == [1, 10]
    assert torch.equal(pool[1][0], torch.ones(2))
    assert pool[1][1] == 2
    assert 10 not in pool.unlabeled_indices().tolist()
    assert INPUTS.shape == (10, 2)


def test_a_memory_mapped_pool_takes_no_new_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", INPUTS.numpy())
    pool = TensorPool(np.load(tmp_path / "x.npy", mmap_mode="r"), TARGETS)
    with pytest.raises(UsageError, match="memory-mapped pool can't take new inputs"):
        pool.append((torch.ones(2), 1))


def test_a_new_input_of_another_shape_is_refused() -> None:
    pool = TensorPool(INPUTS, TARGETS)
    with pytest.raises(UsageError, match=r"shape \(3,\), not \(2,\)"):
        pool.append((torch.ones(3), 1))
    assert pool.total == 10


@pytest.mark.parametrize("item", [None, object(), True, 1.5, (1, 2, 3), {"a": 1}])
def test_other_items_are_refused(item: Any) -> None:
    with pytest.raises(UsageError, match=f"can't append {type(item).__name__}"):
        TensorPool(INPUTS, TARGETS).append(item)


def test_a_pool_without_answers() -> None:
    pool = TensorPool(INPUTS)
    assert not pool.knows_answers
    assert TensorPool(INPUTS, TARGETS).knows_answers
    with pytest.raises(UsageError, match="sample 3 was labeled by its id alone"):
        pool.append(3)
    with pytest.raises(UsageError, match="no targets"):
        pool.answer(3)
    assert len(pool) == 0
    pool.append(Label(3, 1))
    pool.append(Label(1, 0))
    assert pool.batch(torch.arange(2))[1].tolist() == [1, 0]
    assert pool.batch(torch.arange(2))[1].dtype == torch.int64


def test_fractions_after_a_whole_number_are_not_cut() -> None:
    pool = TensorPool(INPUTS)
    for sample, value in ((0, 1), (1, 0.5), (2, 2)):
        assert pool.check(value) is None
        pool.append(Label(sample, value))
    assert pool.batch(torch.arange(3))[1].tolist() == [1.0, 0.5, 2.0]


class Plain:
    """A pool as lists: inputs by id, known targets by id, and the order of labels."""

    def __init__(self, targets: torch.Tensor | None) -> None:
        self.inputs = INPUTS.tolist()
        self.targets: dict[int, Any] = {} if targets is None else dict(enumerate(targets.tolist()))
        self.order: list[int] = []

    def append(self, item: Any) -> None:
        sample = item if isinstance(item, int) else item.item
        if not isinstance(sample, int):
            self.inputs.append(sample.tolist())
            sample = len(self.inputs) - 1
        if isinstance(item, Label):
            self.targets[sample] = item.value
        self.order.append(sample)


@pytest.mark.parametrize("has_targets", [True, False])
@given(data=st.data())
def test_any_order_of_appends_gives_what_plain_lists_give(has_targets: bool, data: st.DataObject) -> None:
    targets = TARGETS if has_targets else None
    inputs = INPUTS.numpy() if data.draw(st.booleans()) else INPUTS
    pool, plain = TensorPool(inputs, targets, info=DataInfo("classification", 100)), Plain(targets)
    value = st.integers(0, 99)
    for _ in range(data.draw(st.integers(1, 14))):
        free = pool.unlabeled_indices().tolist()
        kinds = ["new", *(["value"] if free else []), *(["id"] if free and has_targets else [])]
        kind = data.draw(st.sampled_from(kinds))
        if kind == "new":
            item: Any = Label(torch.tensor([data.draw(value) / 1.0, 1.0]), data.draw(value))
        else:
            sample = data.draw(st.sampled_from(free))
            item = sample if kind == "id" else Label(sample, data.draw(value))
        pool.append(item)
        plain.append(item)
    assert (pool.total, len(pool)) == (len(plain.inputs), len(plain.order))
    assert pool.labeled_ids.tolist() == plain.order
    assert pool.unlabeled_indices().tolist() == sorted(set(range(10)) - set(plain.order))
    positions = data.draw(st.lists(st.integers(0, len(plain.order) - 1), max_size=6))
    rows, answers = pool.batch(torch.tensor(positions, dtype=torch.int64))
    assert rows.tolist() == [plain.inputs[plain.order[place]] for place in positions]
    assert answers.tolist() == [plain.targets[plain.order[place]] for place in positions]
    for place, sample in enumerate(plain.order):
        for pair in (pool[place], pool.answer(sample)):
            assert (pair[0].tolist(), pair[1].item()) == (plain.inputs[sample], plain.targets[sample])
    ids = data.draw(st.lists(st.integers(0, pool.total - 1), max_size=6))
    copies = pool.inputs(torch.tensor(ids, dtype=torch.int64))
    assert copies.tolist() == [plain.inputs[sample] for sample in ids]
    copies.zero_()  # a copy
    assert pool.inputs(torch.arange(pool.total)).tolist() == plain.inputs


@pytest.mark.parametrize("has_targets", [True, False])
def test_appending_copies_no_array_and_reserves_nothing_for_others(has_targets: bool) -> None:
    """The arrays are of one row, shown many times over: with rows of their own they would take petabytes."""
    many, field = 10**7, torch.rand(129, 129)
    inputs = torch.zeros(1, 1).expand(many, 2**20)
    pool = TensorPool(inputs, torch.zeros(1, 1, 1).expand(many, 129, 129) if has_targets else None)
    for sample in (many - 1, 3):
        pool.append(Label(sample, field * sample))
    pool.append((torch.ones(2**20), field))
    pool.append(Label(torch.ones(2**20), -field))
    assert (pool.total, len(pool)) == (many + 2, 4)
    assert torch.equal(pool.batch(torch.arange(4))[1], torch.stack([field * (many - 1), field * 3, field, -field]))
    assert bool((pool.answer(many + 1)[0] == 1).all())


def test_a_target_that_is_not_known_is_no_zero() -> None:
    pool = TensorPool(INPUTS)
    pool.append(Label(3, 1))
    with pytest.raises(UsageError, match="the target of sample 4 is not known"):
        pool.answer(4)


def test_a_digest_covers_what_was_appended() -> None:
    def digest(*items: Any) -> str:
        pool = TensorPool(INPUTS, TARGETS)
        for item in items:
            pool.append(item)
        return pool.digest()

    new = torch.ones(2)
    others = [
        digest(), digest(1), digest(Label(1, 0)), digest(Label(1, 2)), digest(Label(2, 2)), digest((new, 1)),
        digest((new, 2)), digest((2 * new, 2)), digest(Label(1, 2), 2), digest(1, Label(2, 2)),
    ]  # fmt: skip
    assert len(set(others)) == len(others)
    assert digest((new, 1)) == digest(Label(new.clone(), 1))


# -- what a label may be ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 2, np.uint8(1), torch.tensor(2), True, 1.0])
def test_values_that_fit(value: Any) -> None:
    assert TensorPool(INPUTS, TARGETS).check(value) is None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (3, "not one of the 3 classes 0 to 2"),
        (-1, "not one of the 3 classes"),
        (0.5, "a fraction"),
        (torch.tensor(0.5), "a fraction"),
        ([1], r"shape \(1,\) is not the targets' \(\)"),
        (1j, "complex"),
        ("cat", "a str is not a label"),
        (None, "None is not a label"),
        ({"a": 1}, "a dict is not a label"),
        (2**70, "is too large"),
    ],
)
def test_values_that_do_not_fit(value: Any, what: str) -> None:
    fault = TensorPool(INPUTS, TARGETS).check(value)
    assert re.search(what, str(fault))


def test_values_of_a_regression() -> None:
    pool = TensorPool(INPUTS, torch.zeros(10, 2))
    assert pool.check([0.5, -3]) is None
    assert pool.check(torch.tensor([1, 2])) is None
    assert "shape" in str(pool.check(0.5))
    assert "complex" in str(pool.check([1j, 0]))


def test_a_value_too_large_for_the_targets() -> None:
    pool = TensorPool(INPUTS, TARGETS.to(torch.uint8), info=DataInfo("regression"))
    assert pool.check(255) is None
    assert "too large for targets of dtype torch.uint8" in str(pool.check(300))
    assert pool.check(-1) is not None


@given(st.one_of(st.integers(-3, 5), st.floats(), st.booleans(), st.none(), st.lists(st.integers(0, 2), max_size=2)))
def test_a_value_that_passes_can_be_appended(value: Any) -> None:
    pool = TensorPool(INPUTS, TARGETS)
    if pool.check(value) is None:
        pool.append(Label(0, value))
        assert pool[0][1] == value


# -- identity --------------------------------------------------------------------------------------------


def test_a_digest_identifies_inputs_targets_and_labels(form: Form) -> None:
    def digest(inputs: torch.Tensor = INPUTS, targets: torch.Tensor = TARGETS, labeled: tuple[int, ...] = (1,)) -> str:
        return TensorPool(form(inputs), form(targets), labeled).digest()

    changed = INPUTS.clone()
    changed[9, 1] += 1
    others = {
        digest(changed),
        digest(targets=TARGETS.flip(0)),
        digest(labeled=(2,)),
        digest(labeled=(1, 2)),
        digest(labeled=(2, 1)),
        digest(INPUTS.reshape(10, 1, 2)),
        digest(INPUTS.double()),
        digest(targets=TARGETS.int()),
    }
    assert len(others) == 8
    assert digest() == digest(INPUTS.clone())
    assert digest() not in others
    assert len(digest()) == 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64])
def test_pools_of_any_type_have_a_digest(dtype: torch.dtype) -> None:
    assert TensorPool(INPUTS.to(dtype)).digest() != TensorPool(INPUTS.flip(0).to(dtype)).digest()


def test_layout_in_memory_does_not_count() -> None:
    assert TensorPool(INPUTS.T.contiguous().T).digest() == TensorPool(INPUTS).digest()


def test_of_a_large_array_only_some_rows_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from alcore.pools import tensor_pool

    monkeypatch.setattr(tensor_pool, "_DIGEST_WHOLE", 1000)
    monkeypatch.setattr(tensor_pool, "_DIGEST_ROWS", 3)
    rows = torch.zeros(1001, 2)
    np.save(tmp_path / "x.npy", rows.numpy())
    before = TensorPool(rows).digest()
    assert TensorPool(rows.numpy()).digest() == TensorPool(np.load(tmp_path / "x.npy", mmap_mode="r")).digest()
    rows[1] = 1
    assert TensorPool(rows).digest() == before
    rows[500] = 1
    assert TensorPool(rows).digest() != before


class Bare:
    """A pool of a user, which may augment what it returns."""

    def __init__(self, n: int = 3) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("must not be called: it may augment")

    def append(self, item: Any) -> None:
        raise NotImplementedError


class Choosable(Bare):
    ids: tuple[int, ...] = (1, 2)

    def unlabeled_indices(self) -> torch.Tensor:
        return torch.tensor(self.ids)

    def inputs(self, ids: torch.Tensor) -> torch.Tensor:
        return ids


def test_a_pool_without_a_digest_is_known_by_length_and_unlabeled_ids() -> None:
    assert pool_digest(Bare()) == pool_digest(Bare())
    assert pool_digest(Bare()) != pool_digest(Bare(4))
    other = Choosable()
    other.ids = (1, 3)
    assert len({pool_digest(Bare()), pool_digest(Choosable()), pool_digest(other)}) == 3
    pool = TensorPool(INPUTS, TARGETS)
    assert pool_digest(pool) == pool.digest()


def test_is_choosable_tells_pools_with_both_methods() -> None:
    assert is_choosable(TensorPool(INPUTS))
    assert is_choosable(Choosable())
    assert not is_choosable(Bare())
    assert not is_choosable([])


# -- ids -------------------------------------------------------------------------------------------------


@given(st.integers())
def test_any_integer_is_an_id(number: int) -> None:
    assert as_sample_id(number) == number


@pytest.mark.parametrize(
    "item", [np.int8(5), np.uint64(5), np.array(5), torch.tensor(5), torch.tensor(5, dtype=torch.uint8)]
)
def test_integers_of_other_libraries_are_ids(item: Any) -> None:
    sample = as_sample_id(item)
    assert sample == 5
    assert type(sample) is int


@pytest.mark.parametrize(
    "item",
    [True, np.bool_(True), np.array(True), torch.tensor(True), 5.0, np.float32(5), torch.tensor(5.0), np.array([5]),
     torch.tensor([5]), torch.tensor([[5]]), "5", None, [5], Label(5, 1), 5j],
    ids=repr,
)  # fmt: skip
def test_other_things_are_no_ids(item: Any) -> None:
    assert as_sample_id(item) is None


def test_classes_counted_in_labeled_samples_alone_may_not_be_all() -> None:
    targets = torch.tensor([0, 1])
    assert TensorPool(torch.zeros(2, 1), targets, labeled=[0, 1]).check(2) is None
    for pool in (
        TensorPool(torch.zeros(2, 1), targets, labeled=[0]),
        TensorPool(torch.zeros(2, 1), targets, labeled=[0, 1], info=DataInfo("classification", 2)),
    ):
        assert pool.check(2) == "it is not one of the 2 classes 0 to 1"


def test_pool_without_targets_never_knows_answers_however_many_labels_it_has() -> None:
    pool = TensorPool(torch.zeros(3, 1), info=DataInfo("classification", 2))
    pool.append(Label(0, 1))
    assert not pool.knows_answers
    with pytest.raises(UsageError, match="this pool has no targets"):
        pool.append(1)


@pytest.mark.parametrize("knows", [True, False], ids=["given", "from labels"])
@pytest.mark.parametrize("shape", [(), (2,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64, torch.bool, torch.float32, torch.complex64])
@pytest.mark.parametrize("value", [-129, -1, 0, 1, 2, 127, 128, 255, 256, 2**24 + 1, 2**40])
def test_pool_judges_a_whole_number_as_the_same_number_in_a_tensor(
    value: int, dtype: torch.dtype, shape: tuple[int, ...], knows: bool
) -> None:
    targets = torch.zeros(4, *shape, dtype=dtype)
    if knows:
        pool = TensorPool(torch.zeros(4, 1), targets, info=DataInfo(task="regression"))
    else:
        pool = TensorPool(torch.zeros(4, 1), info=DataInfo(task="regression"))
        pool.append(Label(0, targets[0]))
    assert pool.check(value) == pool.check(torch.tensor(value))
