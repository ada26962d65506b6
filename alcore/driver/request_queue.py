"""The queue between query and label strategies: each request is made once, and taken once."""

from __future__ import annotations

import collections
import contextlib
import math
import queue
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from alcore.codec import dumps
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import InputCheck, PoolSet
from alcore.errors import QueryError, UsageError
from alcore.pools.batches import map_leaves
from alcore.pools.candidates import Candidates
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import Request
from alcore.store.rows import AskedRequest, request_id

OVER_BUDGET = "over the budget"
"""The reason for which `RequestQueue` drops a request that the budget doesn't allow."""
_ARRAYS = (torch.Tensor, np.ndarray, np.generic)


class RequestQueue:
    """What query strategies put requests into, and a label strategy takes them out of.

    It normalizes and counts what is asked for, and drops repeats; where a request is, the ledger knows.

    Parameters
    ----------
    ledger
        Keeps the state of each request.
    candidates
        What may be asked for; what is asked for is masked there.
    run_id
        Part of each request's key.
    pools
        Check generated inputs, make the learner's inputs of them, and say how exact a label is to be.
    costs
        What labels are expected to cost.
    samples_per_step
        How many samples all query strategies of a step may ask for together; None sets no limit.

    Attributes
    ----------
    dropped : collections.Counter
        How many puts it dropped, by reason.
    budget_left : float
        What may still be spent.
    usual_cost : float
        Default expected cost of a label.
    quota : int or None
        How many samples the strategy at work may ask for; None sets no limit.
    on_take : callable
        Called with the requests that a label strategy takes out, before it gets them.
    on_give_back : callable
        Called with the requests that a label strategy gives back.
    """

    def __init__(
        self,
        ledger: RequestLedger,
        candidates: Candidates,
        run_id: str,
        pools: PoolSet,
        costs: ExpectedCosts,
        *,
        samples_per_step: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._candidates = candidates
        self._run_id = run_id
        self._pools, self._costs, self._samples_per_step = pools, costs, samples_per_step
        self._check_input = InputCheck(pools)
        self._step = 0
        self._strategy, self.usual_cost = "", 1.0
        self._infeasible: Callable[[], Iterable[Any]] = lambda: ()
        self._failed_before: set[str] | None = None  # generated inputs; not read as long as none is asked for
        self.budget_left = float("inf")
        self._rank = 0
        self.quota: int | None = None
        self.on_take: Callable[[Sequence[Request]], None] = lambda _requests: None
        self.on_give_back: Callable[[Sequence[Request]], None] = lambda _requests: None
        self.dropped: collections.Counter[str] = collections.Counter()

    def begin(
        self,
        step: int,
        budget_left: float,
        usual_cost: float = 1.0,
        infeasible: Callable[[], Iterable[Any]] = lambda: (),
    ) -> None:
        """Start a query phase.

        Parameters
        ----------
        step
            Its step.
        budget_left
            What the labels that it asks for may cost in all.
        usual_cost
            Default expected cost of a label.
        infeasible
            Returns what failed as infeasible before, sample ids and generated inputs; they are not asked for again.
        """
        self.usual_cost = usual_cost
        self._infeasible, self._failed_before = infeasible, None
        self._step, self.budget_left = step, budget_left
        self.dropped = collections.Counter()
        self._ledger.begin_query(step)

    @property
    def asked(self) -> list[AskedRequest]:
        """What the query phase under way, or the last one, asked for."""
        return self._ledger.asked

    @property
    def first_ordinal(self) -> int:
        """How many requests the step had made before the query phase under way; 0 unless phases are called by hand."""
        return self._ledger.first_ordinal

    def adopt(self, recorded: Sequence[AskedRequest], budget_left: float | None = None) -> None:
        """Replace what was asked for now by what is on record for this phase, or by what rank 0 asked for.

        Parameters
        ----------
        recorded
            What counts.
        budget_left
            What may still be spent after it; unchanged where it is None.
        """
        self.budget_left = self.budget_left if budget_left is None else budget_left
        before, recorded_samples = self.asked, {request.sample for request in recorded}
        self._ledger.asked = list(recorded)
        self._candidates.mask(request.sample for request in recorded if request.sample is not None)
        if gone := [
            request.sample
            for request in before
            if request.sample is not None and request.sample not in recorded_samples
        ]:
            self._candidates.unmask(gone)

    def begin_strategy(self, name: str, strategies_left: int) -> None:
        """Start the turn of a query strategy.

        Parameters
        ----------
        name
            Of the strategy that the next puts come from.
        strategies_left
            How many are still to ask, this one included: what is left of `samples_per_step` is divided by them,
            rounded up.
        """
        self._strategy, self._rank = name, 0
        total = self._samples_per_step
        self.quota = None if total is None else -(-(total - len(self.asked)) // strategies_left)

    def put(self, item: Any, block: bool = True, timeout: float | None = None, *, score: float | None = None) -> None:
        """Ask for the label of a sample id or a generated input.

        Parameters
        ----------
        item
            An integer of any kind is a sample id; a tensor, array or JSON-like value is a generated input, which must
            be like the inputs of the pool.
        block, timeout
            As in `queue.Queue`; nothing here ever blocks.
        score
            What the strategy gave this item, to be kept with the request.
        """
        del block, timeout
        sample = as_sample_id(item)
        if request := self._ask(item, sample, score, sample is not None and sample in self._candidates):
            self._hand_out([request])

    def _ask(
        self, item: Any, sample: int | None, score: float | None, is_candidate: bool, known_cost: float | None = None
    ) -> Request | None:
        """Return a request for an item, which is a sample id where `sample` is not None; None where it is dropped."""
        if sample is not None:
            if not is_candidate:
                self.dropped[f"{self._strategy}: not an unlabeled sample, or asked for already"] += 1
                return None
            item = sample
        elif item is None:
            raise QueryError(f"{self._strategy} put None into the query queue; put a sample id or an input.")
        elif fault := self._check_input(item):
            raise QueryError(
                f"{self._strategy} put {item!r:.60} into the query queue, which is neither a sample id nor an input of "
                f"this pool: {fault}. Put sample ids, which are integers, one by one or with put_many, or inputs."
            )
        else:
            dumps(item)  # raises here, inside the strategy, if it can't be stored
            if self._failed_as_infeasible(item):
                self.dropped[f"{self._strategy}: an input that failed as infeasible before"] += 1
                return None
        if self.quota is not None and self._rank >= self.quota:
            self.dropped[f"{self._strategy}: more than its share of samples_per_step"] += 1
            return None
        said = self._costs.of(item) if known_cost is None else known_cost
        cost = self.usual_cost if said is None else float(said)
        if not 0 <= cost < math.inf:
            raise QueryError(
                f"the cost of {item!r} is {cost!r}, by the label strategy's cost() or the pool's; it must be finite "
                "and not negative."
            )
        if cost > self.budget_left and not math.isclose(cost, self.budget_left):  # 0.3 - 0.1 - 0.1 < 0.1
            self.dropped[OVER_BUDGET] += 1
            return None
        self.budget_left -= cost
        ordinal = self.first_ordinal + len(self.asked)
        request = Request(request_id(self._run_id, self._step, ordinal), self._step, ordinal, item)
        worth = None if score is None else float(score)
        asked = AskedRequest(request, sample, self._strategy, worth, self._rank, cost, self._pools.fidelity(item))
        self.asked.append(asked)
        self._rank += 1
        return request

    def _failed_as_infeasible(self, item: Any) -> bool:
        """Return whether a generated input is one that failed as infeasible before."""
        if self._failed_before is None:
            self._failed_before = {self._key_of(item) for item in self._infeasible() if type(item) is not int}
        return bool(self._failed_before) and self._key_of(item) in self._failed_before

    def _key_of(self, item: Any) -> str:
        """Return a text that is the same for one generated input, whatever kind of array it is in."""
        own = self._pools.as_input(item)
        return dumps(
            map_leaves(lambda leaf: torch.as_tensor(leaf).tolist() if isinstance(leaf, _ARRAYS) else leaf, own)
        )

    def _hand_out(self, requests: Sequence[Request]) -> None:
        """Put up for labeling what was just asked for, and mask it."""
        self._candidates.mask(request.item for request in requests if type(request.item) is int)
        self._ledger.hand_out(requests)

    def put_many(self, items: Iterable[Any], scores: Sequence[float] | None = None) -> None:
        """Ask for several labels, best first."""
        items = list(items)
        samples = [as_sample_id(item) for item in items]
        open_ = self._candidates.among(sample for sample in samples if sample is not None)
        requests: list[Request] = []
        costs = self._known_costs(open_)
        try:
            for place, (item, sample) in enumerate(zip(items, samples, strict=True)):
                score, cost = None if scores is None else float(scores[place]), costs.get(sample)
                request = self._ask(item, sample, score, sample in open_, cost)
                if request is not None:
                    requests.append(request)
                    if sample is not None:
                        open_.discard(sample)
        finally:  # what was asked for before an item that can't be
            self._hand_out(requests)

    def _known_costs(self, samples: Iterable[int]) -> dict[int | None, float]:
        """Return what labels are expected to cost, by sample, where somebody says it of many."""
        ids = torch.tensor(sorted(samples), dtype=torch.int64)
        costs = self._costs.of_many(ids) if len(ids) else None
        return {} if costs is None else dict(zip(ids.tolist(), costs.tolist(), strict=True))

    def put_nowait(self, item: Any) -> None:
        """Do as `put` does, which never waits."""
        self.put(item)

    def get_request(self) -> Request:
        """Take out the next request; raises `queue.Empty` when nothing is left.

        It stays with the label strategy, also when `label` returns, until it is answered, reported as failed, or given
        back.
        """
        return self._taken([self._ledger.take()])[0]

    def get_many(self, n: int) -> list[Request]:
        """Take out up to `n` requests, in one transaction; none when nothing is left."""
        requests: list[Request] = []
        with contextlib.suppress(queue.Empty):
            while len(requests) < n:
                requests.append(self._ledger.take())
        return self._taken(requests)

    def give_back(self, request: Any) -> None:
        """Let a request be handed out again: in this phase, or in the next one.

        Parameters
        ----------
        request
            A `Request`, or the item that `get` returned.

        Raises
        ------
        UsageError
            When it is not with the label strategy.
        """
        taken = self._ledger.find_taken(request)
        if taken is None:
            raise UsageError(
                f"{request!r:.80} can't be given back: it was not taken out, or has been answered or given back."
            )
        self.on_give_back([taken])
        self._ledger.give_back([taken.id])

    def recalled(self) -> list[Request]:
        """Return the requests that are with the label strategy and should not be begun any more.

        That is so where labels keep failing (``DriverConfig.max_failure_rate``), or more is paid and reserved than the
        budget allows. One that is given back is not handed out again in this phase; the answer to one that was begun
        is accepted all the same.
        """
        return self._ledger.recalled()

    def _taken(self, requests: list[Request]) -> list[Request]:
        """Commit that requests are with the label strategy; where that can't be done they are left to label."""
        try:
            if requests:
                self.on_take(requests)
        except BaseException:
            self._ledger.give_back(request.id for request in requests)
            raise
        return requests

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take out what was put; raises `queue.Empty` when nothing is left, since nothing more will come."""
        del block, timeout
        return self.get_request().item

    def get_nowait(self) -> Any:
        """Do as `get` does, which never waits."""
        return self.get()

    def empty(self) -> bool:
        """Return whether nothing is left to label."""
        return not self.qsize()

    def qsize(self) -> int:
        """Return how many requests are left to label."""
        return self._ledger.count_ready()

    def task_done(self) -> None:
        """Do nothing; here for code that treats this as a `queue.Queue`."""
