"""Which run ids there are, and what strategies are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.names import check_run_id, snake_case, unique_names


@pytest.mark.parametrize("name", ["a", "0", "3f2a91bc", "moons-uq_2026.01", "A" * 100])
def test_allowed_run_ids(name: str) -> None:
    assert check_run_id(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a\\b", "../a", "a b", "a\n", "a\x00", "é", "A" * 101, "~"]
)
def test_other_run_ids_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"run id {name!r}: use 1 to 100 letters")):
        check_run_id(name)


@given(st.text(max_size=8))
def test_an_allowed_run_id_is_one_plain_path_part(name: str) -> None:
    try:
        check_run_id(name)
    except UsageError:
        return
    path = Path("/root") / name
    assert path.resolve() == Path("/root") / name
    assert path.parent == Path("/root")
    assert not name.startswith((".", "-"))


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
    found = unique_names(names)
    assert len(set(found)) == len(found) == len(names)
    assert "driver_log" not in found
    assert all(one.startswith(name) for one, name in zip(found, names, strict=True))
    assert all(
        one == name for one, name in zip(found, names, strict=True) if names.count(name) == 1 and "-2" not in one
    )
