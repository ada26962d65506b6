"""A rank computes with all others, or by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alcore.driver.rank_scope import RankScope


def test_rank_works_by_itself_in_the_block_alone() -> None:
    alone = object()
    ranks: Any = SimpleNamespace(by_itself=lambda: alone)
    scope = RankScope(ranks)
    assert scope.current is scope.all is ranks
    with scope.by_itself():
        assert scope.current is alone
        assert scope.all is ranks
        with scope.by_itself():
            assert scope.current is alone
        assert scope.current is alone
    assert scope.current is ranks


def test_error_in_the_block_brings_all_ranks_back() -> None:
    ranks: Any = SimpleNamespace(by_itself=object)
    scope = RankScope(ranks)
    with pytest.raises(KeyboardInterrupt), scope.by_itself():
        raise KeyboardInterrupt
    assert scope.current is ranks
