"""What labels are expected to cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alcore.errors import raised_by


class ExpectedCosts:
    """What labels are expected to cost: by the label strategy's ``cost(item)``, else by the pool to choose from.

    Parameters
    ----------
    label_strategy, pool
        The two; None where there is none. The pool has ``cost(sample)``, or ``costs_of(samples)`` for many, and
        ``input_cost(item)`` for a generated input.
    """

    def __init__(self, label_strategy: Any, pool: Any) -> None:
        own = callable(getattr(label_strategy, "cost", None))
        owner = label_strategy if own else pool
        self._one, self._many = getattr(owner, "cost", None), None if own else getattr(pool, "costs_of", None)
        self._generated = self._one if own else getattr(pool, "input_cost", None)
        self._named = raised_by(f"cost() of {type(owner).__name__}")

    @property
    def are_known(self) -> bool:
        """Whether anybody says what labels are expected to cost."""
        return callable(self._one)

    def of(self, item: Any) -> float | None:
        """Return what the label of a sample, or of a generated input, is expected to cost; None where nobody says."""
        say = self._one if isinstance(item, int) else self._generated
        if not callable(say):
            return None
        with self._named:
            said = say(item)
            return None if said is None else float(said)

    def of_samples(self, samples: torch.Tensor | Sequence[Any], usual: float) -> torch.Tensor:
        """Return what the labels of samples or inputs are expected to cost: float64 (n,).

        Parameters
        ----------
        samples
            Ids, int64 (n,); or sample ids and generated inputs in a list.
        usual
            What a label costs of which nobody says so.
        """
        if callable(self._many) and isinstance(samples, torch.Tensor):
            with raised_by("costs_of() of the pool"):
                found = self._many(samples)
            if found is not None:
                return torch.as_tensor(found, dtype=torch.float64)
        items = samples.tolist() if isinstance(samples, torch.Tensor) else samples
        each = [self.of(item) for item in items] if callable(self._one or self._generated) else [None] * len(items)
        return torch.tensor([usual if one is None else one for one in each], dtype=torch.float64)
