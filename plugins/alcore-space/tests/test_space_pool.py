"""The pool of a space: candidates without memory, labels from outside, points to measure on."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from alcore_space import Category, Integer, Log, Real, Space, SpacePool, space
from alcore_testing import PoolContract

from alcore import Data, Label, UsageError

TABLES = {
    "T": {"low": 900, "high": 1500, "unit": "K"},
    "p": {"type": "log", "low": 1e5, "high": 4e6},
    "n": {"type": "integer", "low": 1, "high": 4},
    "fuel": {"type": "category", "choices": ["H2", "CH4"]},
}
HALF = ("n > 2 or fuel == 'H2'", "T < 1400")


def make(**given: Any) -> SpacePool:
    pool: SpacePool = space(**{"variables": TABLES, "candidates": 500, **given}).train
    return pool


class TestSpacePool(PoolContract):
    name = "space"
    required_parameters = ("variables",)

    def data(self) -> Data:
        made: Data = space(TABLES, candidates=500, constraints=HALF, initial=3)
        return made

    def make(self) -> SpacePool:
        pool = make(constraints=HALF, initial=3, cost="1 + n", fidelity="n")
        for sample in pool.start_ids:
            pool.append(Label(sample, float(sample)))
        return pool

    def generated(self, pool: SpacePool) -> list[Any]:
        return [{"T": 900.0, "p": 1e6, "n": 3, "fuel": "CH4"}]


class TestFiniteClasses(PoolContract):
    def make(self) -> SpacePool:
        tables = {"n": {"type": "integer", "low": 0, "high": 9}, "fuel": TABLES["fuel"]}
        pool = make(variables=tables, initial=3, classes=("no", "yes"))
        for sample in pool.start_ids:
            pool.append(Label(sample, sample % 2))
        return pool


def test_candidates_that_break_a_constraint_are_never_listed() -> None:
    pool = make(constraints=HALF)
    listed = pool.unlabeled_indices()
    shown = pool.shown(range(500))
    fine = [
        (n > 2 or fuel == "H2") and T < 1400 for T, n, fuel in zip(shown["T"], shown["n"], shown["fuel"], strict=True)
    ]
    assert listed[listed < 500].tolist() == [sample for sample in range(500) if fine[sample]]
    assert 100 < sum(fine) < 400


def test_what_is_shown_are_values_in_the_units_of_the_user() -> None:
    pool = make()
    shown = pool.shown([3, *pool.start_ids[:1], 4])
    assert list(shown) == ["T", "p", "n", "fuel"]
    assert [type(column[0]) for column in shown.values()] == [float, float, int, str]
    assert [type(column[1]) for column in shown.values()] == [float, float, int, str]
    assert all(900 <= value <= 1500 for value in shown["T"])
    inputs = pool.inputs(torch.tensor([3, pool.start_ids[0], 4]))
    assert np.allclose(pool.space.inputs(shown), inputs, atol=1e-6)
    for wrong in (-1, pool.total):
        with pytest.raises(UsageError, match=f"no sample {wrong}"):
            pool.shown([wrong])


def test_a_step_looks_at_other_candidates_than_the_one_before() -> None:
    pool = make(candidates_per_step=200)
    assert [pool.step_range(step) for step in range(4)] == [(0, 200), (200, 400), (400, 500), (0, 200)]
    assert make(candidates_per_step=10**6).step_range(7) == (0, 500)


def test_a_billion_candidates_take_no_memory() -> None:
    tracemalloc.start()
    try:
        pool = make(candidates=10**9, candidates_per_step=1000, constraints=HALF)
        ids = pool.unlabeled_indices(10**9 - 1000, 10**9)
        pool.inputs(ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 200 < len(ids) < 800
    assert int(ids.min()) >= 10**9 - 1000
    assert peak < 20e6
    with pytest.raises(UsageError, match="don't fit in one list"):
        pool.unlabeled_indices()


def test_points_to_measure_on_are_not_trained_on() -> None:
    data = space(TABLES, validation=4, initial=5)
    pool = data.train
    assert data.val is pool.held_out
    assert len(pool.start_ids) == 9
    for place, sample in enumerate(pool.start_ids):
        pool.append(Label(sample, place))
    assert (len(pool), len(data.val)) == (5, 4)
    assert pool.batch(torch.arange(5))[1].tolist() == [4, 5, 6, 7, 8]
    assert [float(data.val[place][1]) for place in range(4)] == [0, 1, 2, 3]
    assert torch.equal(data.val[0][0], pool.inputs(torch.tensor(pool.start_ids[:1]))[0])
    assert pool.labeled_ids.tolist() == pool.start_ids[4:]
    assert not set(pool.start_ids) & set(pool.unlabeled_indices(10**9, pool.total).tolist())
    with pytest.raises(UsageError, match="is labeled already"):
        pool.append(Label(pool.start_ids[0], 1.0))


POINT = {"T": 1000.25, "p": 1e6, "n": 2, "fuel": "CH4"}


def test_a_generated_point_is_labeled_with_its_values() -> None:
    pool = make()
    assert pool.check_input(POINT) is None
    before, total = pool.digest(), pool.total
    pool.append(Label(POINT | {"n": np.int64(2)}, 1.5))
    assert (pool.total, len(pool), pool.labeled_ids.tolist()) == (total + 1, 1, [total])
    assert pool.shown([total]) == {name: [value] for name, value in POINT.items()}
    assert np.allclose(pool[0][0], [100.25 / 600, np.log(10) / np.log(40), 1 / 3, 0, 1])
    assert pool[0][1].item() == 1.5
    assert pool.digest() != before
    assert total not in pool.unlabeled_indices(400, pool.total)


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (POINT | {"T": 10}, "T: 10 is outside of its bounds 900 to 1500 K"),
        (POINT | {"T": 1450}, "it breaks the constraint 'T < 1400'"),
        ({"T": 1000}, "the value of p is missing"),
        (torch.zeros(5), r"an array of shape \(5,\), and a generated point is a mapping of values by name"),
        ("hot", "a str, and a point is a mapping"),
    ],
)
def test_a_generated_point_is_checked_before_it_is_asked_for(item: Any, fault: str) -> None:
    pool = make(constraints=HALF[1:])
    refusal = pool.check_input(item)
    assert refusal is not None
    with pytest.raises(UsageError, match=fault):
        pool.append(Label(item, 1.0))


def test_a_point_of_a_finite_space_is_named_by_its_id() -> None:
    pool = make(variables={"n": {"type": "integer", "low": 3, "high": 9}, "fuel": TABLES["fuel"]})
    assert pool.total == 14
    for sample in range(14):
        point = {name: column[0] for name, column in pool.shown([sample]).items()}
        assert pool.check_input(point) == f"this space is finite, and the point is sample {sample}; put that id"


@pytest.mark.parametrize(
    ("given", "value", "fault"),
    [
        ({}, 1.5, None),
        ({}, np.array([1.5]), None),
        ({}, [1.0, 2.0], r"its shape is (2,); it must be a number"),
        ({}, "fast", "a str is not a label; it must be a number"),
        ({}, {"y": 1}, "a dict is not a label; it must be a number"),
        ({}, None, "a NoneType is not a label; it must be a number"),
        ({}, float("nan"), "it is NaN, infinite, or too large for single precision"),
        ({}, 1e39, "it is NaN, infinite, or too large for single precision"),
        ({}, 1j, "it is complex, and the target is real"),
        ({"targets": ("a", "b")}, [1, 2], None),
        ({"targets": ("a", "b")}, 1.0, "its shape is (); it must be an array of shape (2,)"),
        ({"shape": (2, 3)}, torch.zeros(2, 3), None),
        ({"shape": (2, 3)}, torch.zeros(3, 2), "its shape is (3, 2); it must be an array of shape (2, 3)"),
        ({"targets": ("a", "b"), "shape": (3,)}, torch.zeros(2, 3), None),
        ({"classes": ("no", "yes")}, 1, None),
        ({"classes": ("no", "yes")}, 2, "it is not one of the 2 classes 0 to 1"),
        ({"classes": ("no", "yes")}, 0.5, "it is a fraction; the code of a class is a whole number"),
    ],
)
def test_the_value_of_a_label_is_checked(given: dict[str, Any], value: Any, fault: str | None) -> None:
    pool = make(**given)
    for sample in (1, 2):  # with and without a label that is known
        assert pool.check(value) == fault
        assert pool.check_item(Label(sample, value)) == fault
        if fault is None:
            pool.append(Label(sample, value))
    if fault is None:
        targets = pool.batch(torch.arange(2))[1]
        assert targets.shape == (2, *pool.info.target_shape)
        assert targets.dtype == (torch.int64 if pool.info.classes else torch.float32)


def test_an_id_alone_is_no_label() -> None:
    pool = make()
    assert not pool.knows_answers
    assert "sample 3 by its id alone was put, and a space doesn't know the answers" in str(pool.check_item(3))
    assert "str was put" in str(pool.check_item("x"))


def test_a_digest_tells_spaces_seeds_and_labels_apart() -> None:
    def labeled(value: float) -> SpacePool:
        pool = make()
        pool.append(Label(3, value))
        return pool

    other = {**TABLES, "T": {"low": 901, "high": 1500}}
    pools = [
        make(), make(seed=1), make(candidates=501), make(constraints=HALF), make(variables=other), make(initial=4),
        make(design="max-min"), make(validation=3), labeled(1.0), labeled(2.0),
    ]  # fmt: skip
    assert len({pool.digest() for pool in pools}) == len(pools)
    assert make().digest() == make().digest()


def test_a_space_of_python_is_that_of_the_tables() -> None:
    variables = [Real("T", 900, 1500, "K"), Log("p", 1e5, 4e6), Integer("n", 1, 4), Category("fuel", ("H2", "CH4"))]
    tables = [{"name": name, **table} for name, table in TABLES.items()]
    same = [make(), make(variables=variables), make(variables=Space(variables)), make(variables=tables)]
    assert len({pool.digest() for pool in same}) == 1
    assert torch.equal(same[0].inputs(torch.arange(9)), same[1].inputs(torch.arange(9)))
