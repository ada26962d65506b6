"""The training loop that fits a deep ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore.randomness import derive_generator
from alcore_bayes.deep_ensemble import DeepEnsemble


class DeepEnsembleLoop:
    """Fit the learner ``deep-ensemble`` to all labeled samples, anew in each step.

    Notes
    -----
    It has its own optimizer and numbers of epochs: ``max_epochs`` and the optimizer of the run are not used, and no
    loss is reported; use a metrology strategy. Weights, bootstrap samples and the order of the labels are derived from
    the seed of the run and the step.
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
            A `DeepEnsemble`.
        optimizer
            Not used.
        train_dataloader
            Batches of (inputs, targets).
        *args, **kwargs
            Other arguments of training loops; not used.

        Raises
        ------
        UsageError
            If the learner is not a `DeepEnsemble`.
        """
        if not isinstance(model, DeepEnsemble):
            raise UsageError(
                "the training loop 'deep-ensemble' fits the learner 'deep-ensemble', and this learner is a "
                f"{type(model).__name__}; use --learner deep-ensemble, or another loop."
            )
        if self._context is None:
            model.fit(train_dataloader, derive_generator(0, "deep-ensemble"))
        else:
            run = self._context
            model.fit(run.ordered_batches(run.train_datapool), run.generator("deep-ensemble"))
