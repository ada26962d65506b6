"""The query queue: ids in one form, each asked for once, within the budget, through any queue."""

from __future__ import annotations

import math
import multiprocessing
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.driver.budget import Budget, FailureRate
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import PoolSet
from alcore.driver.request_queue import RequestQueue
from alcore.errors import EncodingError, QueryError
from alcore.pools import TensorPool
from alcore.pools.candidates import Candidates
from alcore.protocols import Request
from alcore.store.reading import Run
from alcore.store.rows import request_id
from alcore.store.run import RunStore


class Plain:
    """A user's queue: put and get, last in first out."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> Any:
        return self.items.pop()


class Lying(queue.Queue[Any]):
    """Says the wrong thing about itself, as `multiprocessing.Queue` may."""

    def empty(self) -> bool:
        return True

    def qsize(self) -> int:
        raise NotImplementedError


FIRST_IN = [queue.Queue, queue.SimpleQueue, queue.PriorityQueue, multiprocessing.Queue, Lying]
QUEUES = [*FIRST_IN, queue.LifoQueue, Plain]


def ledger_of(transport: Any) -> RequestLedger:
    return RequestLedger(transport, Budget(None), FailureRate(1.0), 0)


def make(
    n: int = 20,
    labeled: tuple[int, ...] = (),
    queue_cls: Callable[[], Any] = queue.Queue,
    cost: Callable[[Any], float] = lambda item: 1.0,
    pool: Any = None,
    budget: float = math.inf,
) -> RequestQueue:
    if pool is None:
        pool = TensorPool(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), labeled)
    made = RequestQueue(
        ledger_of(queue_cls()),
        Candidates(pool),
        "r1",
        PoolSet(None, None, None),
        ExpectedCosts(SimpleNamespace(cost=cost), None),
    )
    made.begin(0, budget)
    made.begin_strategy("uq", 1)
    return made


def drained(requests: RequestQueue) -> list[Any]:
    items = []
    while not requests.empty():
        items.append(requests.get())
    return items


# -- what is an id ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [7, np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7, dtype=torch.uint8)],
    ids=lambda item: type(item).__name__,
)
def test_an_id_of_any_kind_is_the_same_id(item: Any) -> None:
    requests = make()
    requests.put(item)
    requests.put(7)
    (asked,) = requests.asked
    assert asked.sample == asked.request.item == 7
    assert type(asked.sample) is type(asked.request.item) is int  # SQLite would keep np.int64 as a blob
    assert requests.dropped == {"uq: not an unlabeled sample, or asked for already": 1}


@pytest.mark.parametrize(
    "item",
    [True, np.bool_(True), torch.tensor(True), 7.0, np.float64(7), torch.tensor(7.0), torch.tensor([7]), np.array([7]),
     "7", (7,), {"x": 7}],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_a_generated_input(item: Any) -> None:
    requests = make()
    requests.put(item)
    (asked,) = requests.asked
    assert asked.sample is None
    assert asked.request.item is item
    assert requests.get() is item
    requests.put(7)  # it took no sample away
    assert requests.asked[1].sample == 7


@pytest.mark.parametrize("item", [-1, 20, 2**40, 2**70, -(2**70)])
@pytest.mark.parametrize("total", [True, False])
def test_ids_outside_the_pool_are_dropped(item: int, total: bool) -> None:
    class Small:
        def unlabeled_indices(self) -> torch.Tensor:
            return torch.arange(20)

        def inputs(self, ids: torch.Tensor) -> torch.Tensor:
            return ids

    requests = make(pool=None if total else Small())
    requests.put(item)
    assert requests.asked == []
    assert requests.empty()
    assert sum(requests.dropped.values()) == 1


def test_ids_that_do_not_fit_the_database_are_dropped_for_any_pool() -> None:
    requests = make(pool=[])
    requests.put_many([2**63, 2**63 - 1])
    assert [ask.sample for ask in requests.asked] == [2**63 - 1]


def test_generated_input_that_failed_as_infeasible_is_not_asked_for_again() -> None:
    requests, reads = make(), []

    def infeasible() -> list[Any]:
        reads.append(1)
        return [3, {"x": 1.5}, torch.tensor([1.0, 2.0])]

    requests.begin(1, math.inf, infeasible=infeasible)
    requests.begin_strategy("uq", 1)
    requests.put(4)
    assert not reads, "it is not read as long as samples alone are asked for"
    requests.put_many([{"x": 1.5}, {"x": 2.5}, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), 5])
    assert [request.request.item for request in requests.asked if isinstance(request.request.item, int | dict)] == [
        4,
        {"x": 2.5},
        5,
    ]
    assert len(requests.asked) == 4
    assert requests.dropped == {"uq: an input that failed as infeasible before": 2}
    assert reads == [1]


def test_labeled_samples_are_dropped() -> None:
    requests = make(labeled=(3, 5))
    requests.put_many(range(7))
    assert drained(requests) == [0, 1, 2, 4, 6]
    assert requests.dropped.total() == 2


def test_what_was_asked_in_an_earlier_step_is_dropped() -> None:
    requests = make()
    requests.put_many([1, 2])
    requests.begin(1, math.inf)
    assert requests.dropped.total() == 0
    requests.put_many([2, 3])
    assert [(ask.request.step, ask.request.ordinal, ask.sample) for ask in requests.asked] == [(1, 0, 3)]
    assert requests.dropped.total() == 1


def test_several_strategies_never_ask_for_one_sample_twice() -> None:
    requests = make()
    requests.put_many([4, 2])
    requests.begin_strategy("random", 1)
    requests.put_many([2, 9])
    assert [(ask.strategy, ask.sample, ask.rank, ask.request.ordinal) for ask in requests.asked] == [
        ("uq", 4, 0, 0),
        ("uq", 2, 1, 1),
        ("random", 9, 0, 2),
    ]
    assert requests.dropped == {"random: not an unlabeled sample, or asked for already": 1}


@pytest.mark.parametrize("item", [object(), [object()], lambda: 0])
def test_an_input_that_cannot_be_stored_is_refused_at_once(item: Any) -> None:
    requests = make()
    with pytest.raises(EncodingError):
        requests.put(item)
    assert requests.asked == []
    assert requests.empty()


def test_none_is_refused_with_the_strategy() -> None:
    with pytest.raises(QueryError, match="uq put None into the query queue"):
        make().put(None)


# -- scores, ranks, keys, budget -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score", [0.5, np.float32(0.5), torch.tensor(0.5), 1, None], ids=lambda one: type(one).__name__
)
def test_scores_of_any_kind_are_kept_as_numbers(tmp_path: Path, score: Any) -> None:
    requests = make()
    requests.put(3, score=score)
    requests.put_many([5], [score]) if score is not None else requests.put_many([5])
    kept = None if score is None else float(score)
    assert [(ask.score, ask.rank) for ask in requests.asked] == [(kept, 0), (kept, 1)]
    store = RunStore.create(tmp_path, "r1", meta={}, experiment="", state={})
    store.commit_query(0, requests.asked, [], "m")
    assert [row["score"] for row in Run(store.folder).read("SELECT score FROM requests")] == [kept, kept]
    store.close()


def test_ranks_leave_out_what_was_dropped() -> None:
    requests = make(labeled=(1,))
    requests.put_many([0, 1, 2], torch.tensor([3.0, 2.0, 1.0]))
    assert [(ask.sample, ask.rank, ask.score) for ask in requests.asked] == [(0, 0, 3.0), (2, 1, 1.0)]


def test_a_request_carries_its_key() -> None:
    requests = make()
    requests.begin(4, math.inf)
    requests.put_many([8, 6])
    taken = [requests.get_request() for _ in range(2)]
    assert [(request.id, request.step, request.ordinal, request.item, request.attempt) for request in taken] == [
        (request_id("r1", 4, 0), 4, 0, 8, 0),
        (request_id("r1", 4, 1), 4, 1, 6, 0),
    ]


def test_the_budget_is_not_exceeded() -> None:
    requests = make(cost=lambda item: float(item), budget=10.0)
    requests.put_many([4, 5, 3, 1, 2])
    assert [(ask.sample, ask.cost) for ask in requests.asked] == [(4, 4.0), (5, 5.0), (1, 1.0)]
    assert requests.dropped == {"over the budget": 2}
    requests.begin(1, 5.0)
    requests.put_many([3, 2])  # what was too dear is still to be had
    assert [ask.sample for ask in requests.asked] == [3, 2]


@pytest.mark.parametrize(("cost", "budget", "count"), [(0.1, 0.3, 3), (0.1, 1.0, 10), (0.7, 2.1, 3), (1.0, 2.5, 2)])
def test_rounding_takes_no_label_away(cost: float, budget: float, count: int) -> None:
    requests = make(cost=lambda item: cost, budget=budget)
    requests.put_many(range(15))
    assert len(requests.asked) == count


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("budget", [10.0, math.inf])
def test_a_cost_that_is_not_an_amount_is_an_error(cost: float, budget: float) -> None:
    requests = make(cost=lambda item: cost, budget=budget)
    with pytest.raises(QueryError, match="cost of 3 is"):
        requests.put(3)
    assert requests.asked == []


def test_cost_is_asked_for_the_normalized_item() -> None:
    seen: list[Any] = []
    requests = make(cost=lambda item: seen.append(item) or 1.0)
    requests.put_many([np.int64(3), "text"])
    assert seen == [3, "text"]
    assert type(seen[0]) is int


# -- transport -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_cls", QUEUES)
def test_every_queue_delivers_each_request_once(queue_cls: Callable[[], Any]) -> None:
    requests = make(queue_cls=queue_cls)
    items = [5, 3, torch.ones(2), 8, {"x": 1}]
    requests.put_many(items)
    assert requests.qsize() == 5
    assert not requests.empty()
    delivered = drained(requests)
    assert {id(item) for item in delivered} == {id(item) for item in items}
    assert requests.qsize() == 0
    with pytest.raises(queue.Empty):
        requests.get()
    with pytest.raises(queue.Empty):
        requests.get_nowait()


@pytest.mark.parametrize("queue_cls", FIRST_IN)
def test_the_oldest_comes_first(queue_cls: Callable[[], Any]) -> None:
    requests = make(queue_cls=queue_cls)
    requests.put_many([9, 1, 5, 3])
    assert drained(requests) == [9, 1, 5, 3]


@pytest.mark.parametrize("queue_cls", [queue.LifoQueue, Plain])
def test_the_order_of_a_users_queue_is_kept(queue_cls: Callable[[], Any]) -> None:
    requests = make(queue_cls=queue_cls)
    requests.put_many([9, 1, 5])
    assert drained(requests) == [5, 1, 9]


@pytest.mark.parametrize("queue_cls", QUEUES)
def test_refilling_replaces_what_is_left(queue_cls: Callable[[], Any]) -> None:
    requests = make(queue_cls=queue_cls)
    requests.put_many([1, 2, 3])
    requests.get()
    new = [Request(str(place), 0, place, item, attempt=place) for place, item in enumerate([11, torch.ones(1), 13])]
    requests._ledger.hand_out_only(new)
    assert requests.qsize() == 3
    taken = [requests.get_request() for _ in range(3)]
    assert sorted(taken, key=lambda one: one.ordinal) == new
    assert requests.empty()


@pytest.mark.parametrize("queue_cls", QUEUES)
def test_refilling_with_what_is_there_keeps_it(queue_cls: Callable[[], Any]) -> None:
    requests = make(queue_cls=queue_cls)
    requests.put_many([1, 2, 3])
    requests._ledger.hand_out_only([ask.request for ask in requests.asked])
    assert requests.qsize() == 3
    assert sorted(drained(requests)) == [1, 2, 3]


def test_refilling_with_nothing_empties() -> None:
    requests = make()
    requests.put_many([1, 2])
    requests._ledger.hand_out_only([])
    assert requests.empty()


def test_the_methods_of_queue_queue_are_there() -> None:
    requests = make()
    requests.put(1, True, None)
    requests.put_nowait(2)
    assert requests.get(True, 5) == 1
    requests.task_done()
    assert requests.get(timeout=0.1) == 2


@pytest.mark.parametrize("queue_cls", [queue.Queue, queue.SimpleQueue, multiprocessing.Queue])
def test_threads_that_race_for_the_last_request_all_end(queue_cls: Callable[[], Any]) -> None:
    """Between empty() and get() another thread may take the last one; nobody waits for one that never comes."""
    requests = make(200, queue_cls=queue_cls)
    requests.put_many(range(200))
    found: list[int] = []

    def work() -> None:
        while not requests.empty():
            try:
                found.append(requests.get())
            except queue.Empty:
                return

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(found) == list(range(200))


def test_a_request_that_is_being_taken_is_not_promised_to_another_thread() -> None:
    waiting, go = threading.Event(), threading.Event()

    class Slow(queue.Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waiting.set()
            assert go.wait(10)
            return super().get(timeout=10)

    requests = make(queue_cls=Slow)
    requests.put(3)
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(requests.get()), daemon=True)
    taker.start()
    assert waiting.wait(10)
    assert requests.empty()
    with pytest.raises(queue.Empty):
        requests.get()
    go.set()
    taker.join(10)
    assert taken == [3]


def test_an_interrupted_get_loses_nothing() -> None:
    class Once(queue.Queue[Any]):
        failed = False

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if not self.failed:
                self.failed = True
                raise KeyboardInterrupt
            return super().get(timeout=10)

    requests = make(queue_cls=Once)
    requests.put(3)
    with pytest.raises(KeyboardInterrupt):
        requests.get()
    assert requests.qsize() == 1
    assert requests.get() == 3


# -- against a plain model -------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-2, 12), max_size=30),
    st.sets(st.integers(0, 9)),
    st.integers(0, 12),
)
def test_puts_against_a_plain_model(items: list[int], labeled: set[int], budget: int) -> None:
    requests = make(10, tuple(labeled), budget=float(budget))
    requests.put_many(items)
    expected: list[int] = []
    unasked = over = 0
    for item in items:
        if not 0 <= item < 10 or item in labeled or item in expected:
            unasked += 1
        elif len(expected) == budget:
            over += 1
        else:
            expected.append(item)
    assert [ask.sample for ask in requests.asked] == expected
    assert [ask.request.ordinal for ask in requests.asked] == list(range(len(expected)))
    assert requests.dropped["uq: not an unlabeled sample, or asked for already"] == unasked
    assert requests.dropped["over the budget"] == over
    assert drained(requests) == expected


# -- generated inputs --------------------------------------------------------------------------------------


class Listed:
    """A pool that can be chosen from, and doesn't say what an input is like."""

    def __init__(self, inputs: Any) -> None:
        self._inputs = inputs

    def unlabeled_indices(self) -> torch.Tensor:
        return torch.arange(1)

    def inputs(self, ids: torch.Tensor) -> Any:
        return self._inputs


class Empty(Listed):
    def unlabeled_indices(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.int64)


ARRAYS, MAPS = torch.zeros(1, 2), {"a": torch.zeros(1, 2), "b": torch.zeros(1)}


def checked(pool: Any, *, choice: Any = None) -> RequestQueue:
    pools = PoolSet(pool, None, choice)
    ledger = ledger_of(queue.Queue())
    made = RequestQueue(ledger, Candidates(pools.choice), "r1", pools, ExpectedCosts(None, None))
    made.begin(0, math.inf)
    made.begin_strategy("uq", 1)
    return made


@pytest.mark.parametrize("item", [20.5, True, "20", [20, 21], (1, 0), torch.tensor(20.0), {"x": 1}])
@pytest.mark.parametrize("pool", [TensorPool(ARRAYS, torch.zeros(1)), Listed(ARRAYS)], ids=["own check", "example"])
def test_item_that_is_neither_an_id_nor_an_input_is_an_error_of_the_strategy(pool: Any, item: Any) -> None:
    requests = checked(pool)
    with pytest.raises(QueryError, match=r"uq put .* into the query queue, which is neither a sample id nor an input"):
        requests.put(item)
    assert requests.asked == []
    assert requests.empty()


@pytest.mark.parametrize(
    ("pool", "item"),
    [
        (TensorPool(ARRAYS, torch.zeros(1)), np.ones(2)),
        (Listed(ARRAYS), torch.ones(2)),
        (Listed(MAPS), {"a": torch.ones(2), "b": torch.ones(())}),
        (Listed(["text"]), "20"),
        (Empty(ARRAYS), "anything, as no example is left"),
        ([], {"temperature": 20.5}),
    ],
)
def test_input_like_those_of_the_pool_is_asked_for(pool: Any, item: Any) -> None:
    requests = checked(pool)
    requests.put(item)
    assert [request.request.item for request in requests.asked] == [item]


def test_sizes_may_vary_in_a_pool_that_does_not_say_what_an_input_is_like() -> None:
    checked(Listed(ARRAYS)).put(torch.ones(3))
    with pytest.raises(QueryError, match=r"an input of shape \(3,\), not \(2,\)"):
        checked(TensorPool(ARRAYS, torch.zeros(1))).put(torch.ones(3))


def test_training_pool_says_what_an_input_is_where_samples_are_chosen_from_another() -> None:
    requests = checked(TensorPool(torch.zeros(1, 3), torch.zeros(1)), choice=Listed(ARRAYS))
    requests.put(torch.ones(3))
    with pytest.raises(QueryError):
        requests.put(torch.ones(2))


def test_memory_mapped_pool_takes_no_new_input(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.zeros((3, 2), dtype=np.float32))
    pool = TensorPool(np.load(tmp_path / "inputs.npy", mmap_mode="r"), torch.zeros(3))
    with pytest.raises(QueryError, match="a memory-mapped pool can't take new inputs"):
        checked(pool).put(torch.ones(2))
