"""The training loop that fits a Gaussian process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore.randomness import derive_generator
from alcore_gp.learner import GaussianProcess


class GPTrainingLoop:
    """Fit the learner ``gp`` to all labeled samples, once in each step.

    Notes
    -----
    A fit has no epochs: ``max_epochs`` is not used, and no loss is reported; use a metrology strategy. Starts of the
    search for hyperparameters are derived from the seed of the run and the step.
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
        **kwargs: Any,
    ) -> None:
        """Fit `model` to the training pool of the run; without a run, to the batches of the loader.

        Parameters
        ----------
        model
            A `GaussianProcess`.
        optimizer
            None, since a fit needs no optimizer.
        train_dataloader
            Batches of (inputs, targets).
        *args, **kwargs
            Other arguments of training loops; not used.

        Raises
        ------
        UsageError
            If the learner is not a `GaussianProcess`, or can't be fitted to the labels.
        """
        if not isinstance(model, GaussianProcess):
            raise UsageError(
                f"the training loop 'gp' fits the learner 'gp', and this learner is a {type(model).__name__}; use "
                "--learner gp, or another loop."
            )
        if self._context is None:
            model.fit(train_dataloader, derive_generator(0, "gp"))
        else:
            run = self._context
            model.fit(run.ordered_batches(run.train_datapool), run.generator("gp"))
