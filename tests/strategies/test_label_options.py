"""What a label strategy says of itself, and what holds where it says nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alcore.strategies import label_options

SILENT = {
    "cost_of_one": None,
    "cost_of_many": None,
    "most_at_once": None,
    "labels_by_id": False,
    "is_idempotent": False,
    "doubt_of": None,
    "works_remotely": False,
    "may_wait": False,
    "is_told": True,
    "poll_of": None,
}
"""What each function returns of a strategy that says nothing."""


@pytest.mark.parametrize("strategy", [None, object()], ids=["none", "silent"])
def test_what_holds_where_a_strategy_says_nothing(strategy: Any) -> None:
    assert {name: getattr(label_options, name)(strategy) for name in SILENT} == SILENT


@pytest.mark.parametrize(
    ("function", "member", "said", "returned"),
    [
        ("cost_of_one", "cost", len, len),
        ("cost_of_many", "costs_of", len, len),
        ("cost_of_one", "cost", 2.5, None),
        ("most_at_once", "at_once", 4, 4),
        ("labels_by_id", "labels_by_id", True, True),
        ("is_idempotent", "idempotent", True, True),
        ("doubt_of", "is_in_doubt", len, len),
        ("works_remotely", "remote", True, True),
        ("works_remotely", "remote", "here", False),
        ("may_wait", "waits", True, True),
        ("is_told", "told", False, False),
        ("poll_of", "poll", len, len),
        ("poll_of", "poll", "squeue", None),
    ],
)
def test_each_member_is_asked_for_by_one_function(function: str, member: str, said: Any, returned: Any) -> None:
    strategy = SimpleNamespace(**{member: said})
    assert getattr(label_options, function)(strategy) == returned
    others = {name for name in SILENT if getattr(label_options, name)(strategy) != SILENT[name]}
    assert others <= {function}


@pytest.mark.parametrize(
    ("members", "tracked"),
    [
        ({}, True),
        ({"idempotent": True}, False),
        ({"labels_by_id": True}, False),
        ({"idempotent": True, "poll": len}, True),
        ({"labels_by_id": True, "poll": len}, True),
    ],
)
def test_requests_in_flight_are_recorded_where_they_matter(members: dict[str, Any], tracked: bool) -> None:
    assert label_options.is_tracked(SimpleNamespace(**members)) is tracked


def test_nothing_is_in_flight_without_a_label_strategy() -> None:
    assert not label_options.is_tracked(None)
