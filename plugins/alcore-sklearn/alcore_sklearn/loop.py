"""The training loop that fits an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.pools import tensors_of
from alcore.randomness import derive_seed
from alcore_sklearn.labeled import as_rows
from alcore_sklearn.learner import SklearnLearner


class SklearnTrainingLoop:
    """Fit the learner ``sklearn`` anew on all labeled samples, once a step.

    Notes
    -----
    A fit is a whole: it has no epochs, so ``max_epochs`` is of no account, and no loss is reported; let a metrology
    strategy measure. Random states that the user left open are derived from the seed of the run and the step.
    """

    def __call__(
        self,
        model: Any,
        optimizer: Any = None,  # noqa: ARG002 - the protocol's
        train_dataloader: Iterable[Any] = (),
        *args: Any,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        """Fit `model`.

        Parameters
        ----------
        model
            A `SklearnLearner`.
        optimizer
            None: there is nothing to optimize.
        train_dataloader
            A loader whose ``dataset`` is the pool of labeled samples, else any iterable of (inputs, targets).
        dtype
            Floating-point type of inputs; torch's default where it is None.
        *args, **kwargs
            What else training loops are given; not used.

        Raises
        ------
        UsageError
            When the learner is another one, or scikit-learn refuses the samples.
        """
        if not isinstance(model, SklearnLearner):
            raise UsageError(
                f"the training loop 'sklearn' fits the learner 'sklearn', and this learner is a "
                f"{type(model).__name__}; use --learner sklearn, or another loop."
            )
        pool = getattr(train_dataloader, "dataset", None)
        if pool is None:
            pool = _Joined(train_dataloader)
        model.fit(pool, _seed_of(train_dataloader, len(pool)), dtype)


def _seed_of(loader: Any, rows: int) -> int:
    """Return a seed for this fit: that of the loader's orders, which holds run and step, else the number of rows."""
    words = getattr(loader, "seed", getattr(loader, "_seed", None)) or (0, rows)
    return derive_seed(*words, "sklearn")


class _Joined:
    """The batches of an iterable as one pool."""

    def __init__(self, batches: Iterable[Any]) -> None:
        pairs = list(batches)
        self._inputs = torch.cat([torch.from_numpy(as_rows(inputs)) for inputs, _ in pairs])
        self._targets = torch.cat([tensors_of(targets)[0].cpu() for _, targets in pairs])

    def __len__(self) -> int:
        return len(self._targets)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._inputs[positions], self._targets[positions]
