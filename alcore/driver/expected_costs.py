"""What labels are expected to cost."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import raised_by


class ExpectedCosts:
    """What labels are expected to cost: by the label strategy's ``cost(item)``, else by the pool to choose from.

    Parameters
    ----------
    label_strategy, pool
        The two; None where there is none. The pool has ``cost(sample)``, or ``costs_of(samples)`` for many.
    """

    def __init__(self, label_strategy: Any, pool: Any) -> None:
        self._own = callable(getattr(label_strategy, "cost", None))
        owner = label_strategy if self._own else pool
        self._one, self._many = getattr(owner, "cost", None), None if self._own else getattr(pool, "costs_of", None)
        self._named = raised_by(f"cost() of {type(owner).__name__}")

    def of(self, item: Any) -> float | None:
        """Return what the label of an item, or of a sample, is expected to cost, or None where nobody says."""
        if not callable(self._one) or not (self._own or isinstance(item, int)):
            return None
        with self._named:
            said = self._one(item)
            return None if said is None else float(said)

    def of_samples(self, samples: torch.Tensor, usual: float) -> torch.Tensor:
        """Return what the labels of samples, int64 (n,), are expected to cost: float64 (n,).

        Parameters
        ----------
        samples
            Their ids.
        usual
            What a label costs of which nobody says so.
        """
        if callable(self._many):
            with raised_by("costs_of() of the pool"):
                found = self._many(samples)
            if found is not None:
                return torch.as_tensor(found, dtype=torch.float64)
        each = [self.of(sample) for sample in samples.tolist()] if callable(self._one) else [None] * len(samples)
        return torch.tensor([usual if one is None else one for one in each], dtype=torch.float64)
