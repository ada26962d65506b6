"""The pools of a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.codec import dumps
from alcore.pools.batches import first_item, leaves_of
from alcore.pools.candidates import unlabeled_ids
from alcore.pools.offers import as_input, fidelity_of, input_check
from alcore.pools.tensor_pool import is_choosable
from alcore.pools.values import input_fault
from alcore.protocols import DataInfo


class PoolSet(NamedTuple):
    """The pools of a run: what is trained on, what is held out, and what is chosen from; each may be None."""

    train: Any
    validation: Any
    unlabeled: Any

    @property
    def choice(self) -> Any:
        """The pool that samples are chosen from."""
        return self.train if self.unlabeled is None else self.unlabeled

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if a pool says."""
        info = getattr(self.train, "info", None) or getattr(self.choice, "info", None)
        return info if isinstance(info, DataInfo) else None

    @property
    def choosable(self) -> bool:
        """Whether the pool to choose from lists its unlabeled samples and gives their inputs."""
        return is_choosable(self.choice)

    def fidelity(self, item: Any) -> str | None:
        """Return how exact the label of a sample, or of a generated input, is to be, as JSON.

        None where the pool to choose from doesn't say.
        """
        fidelity = fidelity_of(self.choice, item)
        return None if fidelity is None else dumps(fidelity)

    def as_input(self, item: Any) -> Any:
        """Return the learner's input of a generated one, as the pool to choose from makes it."""
        return as_input(self.choice, item)

    def identified(self) -> dict[str, Any]:
        """Return the pools whose initial state belongs to the run, by name."""
        named = {"train": self.train, "unlabeled": self.unlabeled}
        return {name: pool for name, pool in named.items() if pool is not None}


class InputCheck:
    """Finds out whether a generated input is one like those of the pools, before it is asked for.

    Parameters
    ----------
    pools
        The training pool, or the pool to choose from, may have ``check_input``; else an input of the pool to choose
        from is the example. Where that pool has none to give, or its inputs are not tensors or arrays, every input is
        right.
    """

    def __init__(self, pools: PoolSet) -> None:
        self._own = input_check(pools.train, pools.choice)
        self._choice: Any = pools.choice if pools.choosable else None
        self._examples: list[Any] | None = None

    def __call__(self, item: Any) -> str | None:
        """Return what is wrong with an input, or None."""
        if self._own is not None:
            return self._own(item)
        if self._examples is None:
            self._examples = [] if self._choice is None else self._first_input()
        return input_fault(item, self._examples[0]) if self._examples else None

    def _first_input(self) -> list[Any]:
        first = next((ids[:1] for ids in unlabeled_ids(self._choice) if len(ids)), None)
        batch = None if first is None else self._choice.inputs(first)
        # lists of anything else may be items or structure
        is_of_arrays = all(isinstance(leaf, torch.Tensor | np.ndarray) for leaf in leaves_of(batch))
        return [first_item(batch)] if is_of_arrays else []
