"""What labels are expected to cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from alcore.errors import raised_by
from alcore.pools.offers import cost_of, many_costs, tells_costs
from alcore.strategies.label_options import cost_of_many, cost_of_one


class ExpectedCosts:
    """What labels are expected to cost: by the label strategy's ``cost(item)``, else by the pool to choose from.

    Parameters
    ----------
    label_strategy, pool
        The two; None where there is none. The one that has ``cost`` may have ``costs_of(samples)`` for many; the pool
        has ``input_cost(item)`` for a generated input.

    Attributes
    ----------
    are_known : bool
        Whether anybody says what labels are expected to cost.
    """

    def __init__(self, label_strategy: Any, pool: Any) -> None:
        own = cost_of_one(label_strategy)
        owner = pool if own is None else label_strategy
        self._one = partial(cost_of, pool) if own is None else own
        self._many = many_costs(pool) if own is None else cost_of_many(label_strategy)
        self.are_known = own is not None or tells_costs(pool)
        self._named, self._many_named = (
            raised_by(f"{name}() of {type(owner).__name__}") for name in ("cost", "costs_of")
        )

    def of(self, item: Any) -> float | None:
        """Return what the label of a sample, or of a generated input, is expected to cost; None if that is unknown."""
        if not self.are_known:
            return None
        with self._named:
            said = self._one(item)
            return None if said is None else float(said)

    def of_many(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Return what the labels of samples, int64 (n,), are expected to cost: float64 (n,).

        None where neither the label strategy nor the pool answers for many samples at a time.
        """
        if self._many is None or not len(samples):
            return None
        with self._many_named:
            costs = self._many(samples)
            return None if costs is None else torch.as_tensor(costs, dtype=torch.float64)

    def of_samples(self, samples: torch.Tensor | Sequence[Any], usual: float) -> torch.Tensor:
        """Return what the labels of samples or inputs are expected to cost: float64 (n,).

        Parameters
        ----------
        samples
            Ids, int64 (n,); or sample ids and generated inputs in a list.
        usual
            Default expected cost of a label.
        """
        if isinstance(samples, torch.Tensor):
            costs = self.of_many(samples)
            if costs is not None:
                return costs
        items = samples.tolist() if isinstance(samples, torch.Tensor) else samples
        each = [self.of(item) for item in items] if self.are_known else [None] * len(items)
        return torch.tensor([usual if cost is None else cost for cost in each], dtype=torch.float64)
