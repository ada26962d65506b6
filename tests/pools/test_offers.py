"""What a pool offers, and what holds where it offers nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alcore.pools import offers
from alcore.pools.candidates import offers_parts, total_of

IDS = torch.tensor([0, 2])


@pytest.mark.parametrize("pool", [None, SimpleNamespace(), SimpleNamespace(batch=3, answer=None, check="", cost=1.0)])
def test_pool_without_options(pool: Any) -> None:
    """A member that can't be called is none of a protocol."""
    assert offers.knows_answers(pool)
    assert not offers.has_batch(pool)
    assert not offers.tells_costs(pool)
    assert not offers_parts(pool)
    assert offers.plain_items(pool) is pool
    assert offers.as_input(pool, "item") == "item"
    for ask in (offers.answer_of, offers.evaluation_of, offers.label_check, offers.item_check, offers.many_costs):
        assert ask(pool) is None
    assert offers.input_check(pool, pool) is None
    assert offers.cost_of(pool, 0) is offers.fidelity_of(pool, 0) is offers.at_highest_fidelity(pool, IDS) is None
    assert offers.labeled_ids(pool) is total_of(pool) is None


def test_members_are_found() -> None:
    pool = SimpleNamespace(
        batch=lambda positions: positions,
        plain=["plain"],
        labeled_ids=IDS,
        knows_answers=False,
        as_input=lambda item: [item],
        cost=lambda sample: sample + 1,
        at_highest_fidelity=lambda samples: samples * 2,
        total=3,
        unlabeled_indices=lambda start=0, stop=3: torch.arange(start, stop),
        step_range=lambda step: (step, step + 1),
    )
    assert offers.has_batch(pool)
    assert offers.tells_costs(pool)
    assert offers_parts(pool)
    assert not offers.knows_answers(pool)
    assert offers.plain_items(pool) == ["plain"]
    assert offers.labeled_ids(pool) is IDS
    assert offers.as_input(pool, 1) == [1]
    assert offers.cost_of(pool, 1) == 2.0
    assert offers.at_highest_fidelity(pool, IDS).tolist() == [0, 4]  # type: ignore[union-attr]
    assert total_of(pool) == 3


def test_samples_and_generated_inputs_have_members_of_their_own() -> None:
    pool = SimpleNamespace(
        cost=lambda sample: 1.0,
        input_cost=lambda item: 2.0,
        fidelity=lambda sample: "coarse",
        input_fidelity=lambda item: "fine",
    )
    assert (offers.cost_of(pool, 0), offers.cost_of(pool, {"x": 0})) == (1.0, 2.0)
    assert (offers.fidelity_of(pool, 0), offers.fidelity_of(pool, {"x": 0})) == ("coarse", "fine")


def test_first_pool_with_a_check_of_inputs_counts() -> None:
    first, second = SimpleNamespace(), SimpleNamespace(check_input=lambda item: "second")
    check = offers.input_check(first, second)
    assert check is not None
    assert check(0) == "second"
