"""What writes to a run."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from alcore.driver.answer_queue import AnswerQueue
from alcore.driver.answers import AnswerCheck
from alcore.driver.budget import Budget, FailureRate
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import PoolSet
from alcore.driver.request_queue import RequestQueue
from alcore.pools import TensorPool
from alcore.pools.candidates import Candidates
from alcore.store.rows import Record
from alcore.store.run import RunStore

SAMPLES = 24


def cost_of(item: Any) -> float:
    """What a label is expected to cost."""
    return 2.5 if isinstance(item, str) else 1.0 + item % 2


def state_of(step: int, phase: str, epoch: int) -> dict[str, Any]:
    """What a checkpoint holds: the same whenever this part of the run is computed."""
    tensor = torch.tensor([step, epoch], dtype=torch.float64)
    return {"model": {"w": tensor, "tied": tensor}, "at": {"step": step, "phase": phase}}


def records_of(values: Mapping[tuple[str, int, int], Any]) -> list[Record]:
    """Return metrology records from their values by strategy, step and ordinal."""
    return [Record(step, strategy, ordinal, value) for (strategy, step, ordinal), value in values.items()]


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare what two checkpoints hold."""
    return one["at"] == other["at"] and all(
        torch.equal(one["model"][name], other["model"][name]) for name in ("w", "tied")
    )


class Own(list[Any]):
    """A training pool that checks values as a `TensorPool` does, and takes any object."""

    def __init__(self, pool: TensorPool) -> None:
        super().__init__()
        self.check = pool.check


class Writer:
    """What writes to a run, put together as `alcore.driver` does.

    Parameters
    ----------
    store
        The open run.
    retries
        How often a request that failed is tried again.
    """

    def __init__(self, store: RunStore, retries: int) -> None:
        pool = TensorPool(torch.zeros(SAMPLES, 2), torch.zeros(SAMPLES, dtype=torch.int64))
        self.store = store
        self.candidates = Candidates(pool)
        self.ledger = RequestLedger(queue.Queue(), Budget(None), FailureRate(1.0), retries)
        costs = ExpectedCosts(SimpleNamespace(cost=cost_of), None)
        self.requests = RequestQueue(
            self.ledger,
            self.candidates,
            "r1",
            PoolSet(None, None, None),
            costs,
        )
        self.requests.on_take = store.requests.mark_taken
        self.requests.on_give_back = store.requests.mark_given_back
        self.state: str | None = None
        self.labels = AnswerQueue(
            store,
            self.ledger,
            AnswerCheck(PoolSet(Own(pool), None, None)),
            strategy_state=lambda: self.state,
            after_commit=self._look,
        )

    def begin_labeling(self, step: int) -> None:
        """Open the label queue, with what this phase has accepted already."""
        self.labels.open(step, self.store.labels.labeling(step))

    def hand_out(self, step: int) -> None:
        """Hand out what is open."""
        self.begin_labeling(step)
        self.ledger.hand_out_only(self.ledger.to_hand_out(self.store.labels.labeling(step)))

    def _look(self) -> None:
        assert not self.store.committing, "called before it was committed"
