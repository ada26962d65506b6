"""A training loop for learners that are fitted to all labels at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore.randomness import derive_generator


class FittingLoop:
    """Fit a learner to all labeled samples at once, by its `fit_batches`.

    Notes
    -----
    A fit has no epochs: of the run's training configuration only the pool is used, and no loss is reported; use a
    metrology strategy. What the learner draws is derived from the seed of the run and the step.
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
            A learner with `fit_batches`.
        optimizer
            Not used.
        train_dataloader
            Batches of (inputs, targets).
        *args, **kwargs
            Other arguments of training loops; not used.

        Raises
        ------
        UsageError
            If the learner has no `fit_batches`.
        """
        if not callable(getattr(model, "fit_batches", None)):
            raise UsageError(
                f"FittingLoop fits a learner by its fit_batches(batches, generator), and {type(model).__name__} has "
                "none; use another training loop."
            )
        if self._context is None:
            model.fit_batches(train_dataloader, derive_generator(0, "fit"))
        else:
            run = self._context
            model.fit_batches(run.ordered_batches(run.train_datapool), run.generator("fit"))
