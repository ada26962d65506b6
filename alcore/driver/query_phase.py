"""The query phase: query strategies choose what to label next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from alcore.driver.agreement import agree_on_requests
from alcore.driver.feasibility import Feasibility
from alcore.driver.parts import RunParts
from alcore.errors import raised_by
from alcore.pools.offers import labeled_ids
from alcore.store.run import RunStore
from alcore.training.extra_arguments import accepted


class QueryPhase:
    """Lets query strategies ask for samples.

    Parameters
    ----------
    parts
        What the run consists of.
    feasibility
        Learns which candidates are likely to have no label.
    candidates
        Returns the ids of what may be asked for.
    """

    def __init__(
        self, parts: RunParts, feasibility: Feasibility, candidates: Callable[[], Iterator[torch.Tensor]]
    ) -> None:
        self._parts, self._feasibility, self._candidates = parts, feasibility, candidates

    def run(
        self, strategies: Sequence[Any], store: RunStore | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, int] | None:
        """Let strategies ask for samples, one after the other.

        Parameters
        ----------
        strategies
            Query strategies, in their order.
        store
            The open run, whose budget counts; None chooses as if nothing had been bought.
        args, kwargs
            Passed on to the strategies.

        Returns
        -------
        dict or None
            What `Feasibility.learn` returned, where something was learned.
        """
        queue, step = self._parts.query_queue, self._parts.position.step
        if store is None:
            queue.begin(step, float("inf"))
            self._choose(strategies, args, kwargs)
            return None
        try:
            learned = self._learn(store)
            queue.begin(step, *self._remaining(store), lambda: store.requests.infeasible(step))
            self._choose(strategies, args, kwargs)
        finally:
            self._feasibility.forget()
        return learned

    def _choose(self, strategies: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        queue = self._parts.query_queue
        for left, strategy in zip(range(len(strategies), 0, -1), strategies, strict=True):
            name = self._parts.strategies.name_of(strategy)
            queue.begin_strategy(name, left)
            given, named = accepted(strategy.sample, 1, args, kwargs)
            with raised_by(f"sample() of {name}"):
                strategy.sample(queue, *given, **named)
            agree_on_requests(self._parts.ranks, queue)

    def _remaining(self, store: RunStore) -> tuple[float, float]:
        """Return the remaining budget, and the default expected cost of a label."""
        budget, step = self._parts.config.budget, self._parts.position.step
        if budget is None:
            return float("inf"), 1.0
        usual = store.costs.mean(step)
        return budget - store.costs.committed(step), 1.0 if usual is None else usual

    def _learn(self, store: RunStore) -> dict[str, int] | None:
        """Learn which candidates are likely to have no label, as far as that is wanted and can be learned."""
        pools = self._parts.pools
        failed = store.requests.infeasible(self._parts.position.step) if self._feasibility.is_on else []
        if not failed or not self._parts.candidates.known or pools.train is None:
            return None
        return self._feasibility.learn(pools.choice, self._labeled_inputs(store), failed, self._candidates())

    def _labeled_inputs(self, store: RunStore) -> Iterator[Any]:
        """Return the inputs of the training samples, and of those that the run labeled and holds out, by batches."""
        pools = self._parts.pools
        yield from (batch[0] for batch in self._parts.loaders.large_batches(pools.train))
        trained = labeled_ids(pools.train)
        if trained is not None and pools.train is pools.choice:
            held_out = set(store.labels.samples(self._parts.position.step)) - set(trained.tolist())
            if held_out:
                yield pools.choice.inputs(torch.tensor(sorted(held_out)))
