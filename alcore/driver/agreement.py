"""What the ranks of a run are given by rank 0: the requests that count, and the labels that it was brought."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from alcore.codec import dumps
from alcore.driver.label_queue import LabelQueue
from alcore.errors import AlcoreError
from alcore.store import history, statements
from alcore.store.history import asked_as_list, asked_of_list
from alcore.store.replica import Mirror
from alcore.store.run import RunStore

if TYPE_CHECKING:
    from alcore.driver import Driver


def agree_on_requests(driver: Driver) -> None:
    """Let what rank 0 has asked for so far count on all ranks: a strategy may choose otherwise on another."""
    queue, ranks = driver.query_queue, driver.ranks
    if ranks.size > 1:
        asked, allowance = ranks.share(lambda: ([asked_as_list(one) for one in queue.asked], queue.allowance))
        if not ranks.main:
            queue.adopt([asked_of_list(one) for one in asked], allowance)


def share_labels(driver: Driver, store: RunStore, labels: LabelQueue) -> None:
    """Give the other ranks what rank 0 was brought in the step under way."""
    step, ranks = driver.active_learning_step_idx, driver.ranks
    if ranks.size == 1:
        return
    found = ranks.share(lambda: statements.labels_of(store.database, step))
    if isinstance(store, Mirror):
        store.take_labels(found)
        driver.query_queue.refill([])
        if not history.has_ended(store.database, step):
            labels.begin(step)


def compare_labels(driver: Driver, store: RunStore) -> None:
    """End the run where ranks have not been given the same labels, or their training pools have come apart."""
    step, ranks, pool = driver.active_learning_step_idx, driver.ranks, driver.train_datapool
    if ranks.size == 1:
        return
    rows = statements.label_rows(store.database, step)
    held = [hashlib.sha256(dumps(rows).encode()).hexdigest(), None if pool is None else len(pool)]
    if (rank := ranks.differing(held)) is not None:
        raise AlcoreError(
            f"rank {rank} has other labels than rank 0 behind step {step}; start the run again, which goes on from "
            "what is committed."
        )
