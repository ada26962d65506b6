"""The training loop that fits an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore.randomness import derive_seed
from alcore_sklearn.labeled import JoinedBatches
from alcore_sklearn.learner import SklearnLearner


class SklearnTrainingLoop:
    """Fit the learner ``sklearn`` to all labeled samples, once in each step.

    Notes
    -----
    A fit has no epochs: ``max_epochs`` is not used, and no loss is reported; use a metrology strategy. Random states
    that are not among the parameters of the estimator are derived from the seed of the run and the step.
    """

    _context: RunContext | None = None

    def attach(self, context: RunContext) -> None:
        """Receive the run, before the first step."""
        self._context = context

    def __call__(
        self,
        model: Any,
        optimizer: Any = None,  # noqa: ARG002 - the protocol's
        train_dataloader: Iterable[Any] = (),
        *args: Any,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        """Fit `model` to the training pool of the run; without a run, to the batches of the loader.

        Parameters
        ----------
        model
            A `SklearnLearner`.
        optimizer
            None, since a fit needs no optimizer.
        train_dataloader
            Batches of (inputs, targets).
        dtype
            Floating-point type of inputs; torch's default if None.
        *args, **kwargs
            Other arguments of training loops; not used.

        Raises
        ------
        UsageError
            If the learner is not a `SklearnLearner`, or scikit-learn refuses the samples.
        """
        if not isinstance(model, SklearnLearner):
            raise UsageError(
                f"the training loop 'sklearn' fits the learner 'sklearn', and this learner is a "
                f"{type(model).__name__}; use --learner sklearn, or another loop."
            )
        if self._context is None:
            pool = JoinedBatches(train_dataloader)
            model.fit(pool, derive_seed(0, len(pool), "sklearn"), dtype)
        else:
            model.fit(self._context.train_datapool, self._context.generator("sklearn").initial_seed(), dtype)
