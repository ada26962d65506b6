"""Which run ids are allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.store.files import check_run_id


@pytest.mark.parametrize("name", ["a", "0", "3f2a91bc", "moons-uq_2026.01", "A" * 100])
def test_allowed_run_ids(name: str) -> None:
    assert check_run_id(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a\\b", "../a", "a b", "a\n", "a\x00", "é", "A" * 101, "~"]
)
def test_other_run_ids_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"run id {name!r}: use 1 to 100 ASCII letters")):
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
