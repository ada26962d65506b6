"""What the ranks of a run must have in common; tests/distributed runs it on several processes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from alcore import DatasetPool
from alcore.codec import dumps
from alcore.distributed.ranks import Ranks
from alcore.driver.agreement import agree_on_requests, begin_alike, compare_labels, compare_pools, compare_weights
from alcore.driver.pool_set import PoolSet
from alcore.errors import AlcoreError, UsageError
from alcore.protocols import Request
from alcore.randomness import global_rng_state
from alcore.store.rows import AskedRequest


class Two(Ranks):
    """One of two ranks; the values of the other are given, in order."""

    size = 2

    def __init__(self, rank: int, *others: Any) -> None:
        self.rank, self.others = rank, list(others)
        self.seen: list[Any] = []

    def share(self, make: Callable[[], Any]) -> Any:
        return make() if self.main else self.others.pop(0)

    def gather(self, value: Any) -> list[Any]:
        self.seen.append(value)
        other = self.others.pop(0) if self.others else value
        return [value, other] if self.main else [other, value]


ALONE = Ranks()


def test_rank_alone_compares_nothing() -> None:
    begin_alike(ALONE, None, 0)
    compare_pools(ALONE, PoolSet(None, None, None), {})
    compare_weights(ALONE, None)
    agree_on_requests(ALONE, None)  # type: ignore[arg-type]
    compare_labels(ALONE, None, 0, None)  # type: ignore[arg-type]


def test_rank_1_gets_the_weights_of_rank_0_and_generators_of_its_own() -> None:
    learner, weights = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1).state_dict()
    before = dumps(global_rng_state())
    begin_alike(Two(0), learner, 3)
    assert dumps(global_rng_state()) == before
    begin_alike(Two(1, weights), learner, 3)
    assert all(torch.equal(value, weights[name]) for name, value in learner.state_dict().items())
    assert dumps(global_rng_state()) != before


@pytest.mark.parametrize("name", ["validation", "training", "unlabeled"])
def test_other_data_on_a_rank_is_refused_with_the_pool(toys: Any, name: str) -> None:
    pools = PoolSet(toys.pool(), toys.pool(labeled=4), None)
    digests = {"unlabeled": "a"}
    seen = Two(0)
    compare_pools(seen, pools, digests)
    names = ["training", "unlabeled", "validation"]
    others = [value if one != name else "something else" for one, value in zip(names, seen.seen, strict=True)]
    with pytest.raises(UsageError, match=f"the {name} pool of rank 1 is not that of rank 0"):
        compare_pools(Two(0, *others), pools, digests)


def test_comparing_pools_draws_nothing_from_the_global_generators() -> None:
    class Augmenting(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            return torch.rand(2), torch.tensor(0)

    before = dumps(global_rng_state())
    compare_pools(Two(0), PoolSet(Augmenting([1, 2]), Augmenting([1]), None), {})
    assert dumps(global_rng_state()) == before


def test_other_weights_after_training_end_the_run() -> None:
    with pytest.raises(AlcoreError, match="rank 1 has other weights than that of rank 0 after training"):
        compare_weights(Two(0, "another digest"), torch.nn.Linear(2, 1))


def test_other_labels_end_the_run() -> None:
    store = SimpleNamespace(transfer=SimpleNamespace(label_rows=lambda step: [[step, 1]]))
    compare_labels(Two(0), store, 2, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(AlcoreError, match="rank 1 has other labels than rank 0 after step 2"):
        compare_labels(Two(0, ["x", 2]), store, 2, [1, 2])  # type: ignore[arg-type]


def test_what_rank_0_asked_for_counts_on_all_ranks() -> None:
    asked = [AskedRequest(Request("a" * 32, 0, 0, 7), 7, "uq", 0.5, 0, 1.0)]
    adopted: list[Any] = []
    queue = SimpleNamespace(asked=asked, budget_left=3.0, adopt=lambda *given: adopted.append(given))
    agree_on_requests(Two(0), queue)  # type: ignore[arg-type]
    assert adopted == []
    agree_on_requests(Two(1, ([request.as_list() for request in asked], 3.0)), queue)  # type: ignore[arg-type]
    assert repr(adopted) == repr([(asked, 3.0)])  # requests are equal by identity alone


def test_pools_that_augment_are_compared_by_their_plain_items() -> None:
    pool = DatasetPool(
        TensorDataset(torch.ones(4, 2), torch.arange(4) % 2), range(3), transform=lambda one: one + torch.rand(2)
    )
    pools = PoolSet(pool, None, None)
    main = Two(0)
    torch.manual_seed(0)
    compare_pools(main, pools, {})
    torch.manual_seed(1)  # generators of a rank are its own
    compare_pools(Two(1, *main.seen), pools, {})
