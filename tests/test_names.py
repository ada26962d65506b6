"""What strategies are called in a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alcore.names import snake_case, unique_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("F1Metrology", "f1_metrology"),
        ("ClassifierUQQuery", "classifier_uq_query"),
        ("BALD", "bald"),
        ("KCenter2D", "k_center2_d"),
        ("already_snake", "already_snake"),
        ("_Private", "private"),
        ("RMSE", "rmse"),
        ("HTTPLabel", "http_label"),
        ("Outer.Inner", "outer_inner"),
        ("a/b", "a_b"),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_equal_names_are_told_apart() -> None:
    assert unique_names(["f1", "f1", "uq", "f1"]) == ["f1", "f1-2", "uq", "f1-3"]
    assert unique_names(["f1", "f1-2", "f1"]) == ["f1", "f1-2", "f1-3"]
    assert unique_names(["driver_log"]) == ["driver_log-2"]  # that file is the driver's


@given(st.lists(st.sampled_from(["f1", "f1-2", "f1-2-2", "uq", "driver_log"]), max_size=12))
def test_names_are_unique_and_start_as_they_were_given(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(set(unique)) == len(unique) == len(names)
    assert "driver_log" not in unique
    assert all(one.startswith(name) for one, name in zip(unique, names, strict=True))
    assert all(
        one == name for one, name in zip(unique, names, strict=True) if names.count(name) == 1 and "-2" not in one
    )
