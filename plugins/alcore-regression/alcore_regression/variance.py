"""Posterior variance: how far samples of a posterior are from each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference import top_k
from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery
from alcore_regression.dropout import Dropout, has_dropout
from alcore_regression.outputs import check_regression, check_values


def posterior_variance(samples: torch.Tensor) -> torch.Tensor:
    """Return the variance of what K models predict, summed over the quantities.

    ``sum_t 1/K sum_k (f_kt(x) - mean_t)^2``, the ambiguity of an ensemble.

    Parameters
    ----------
    samples
        Predictions of K models for B samples: shape (K, B) or (K, B, T).

    Returns
    -------
    torch.Tensor
        Float64, shape (B,).

    References
    ----------
    Krogh and Vedelsby (1995), Neural network ensembles, cross validation, and active learning, NIPS 7; Burbidge,
    Rowland and King (2007), Active learning for regression based on query by committee, IDEAL.
    """
    samples = samples.double()
    variance = (samples - samples.mean(dim=0)).square().mean(dim=0)
    return variance if variance.dim() == 1 else variance.flatten(1).sum(dim=1)


class VarianceQuery(BaseQuery):
    """Ask for the samples that the samples of a posterior agree on least.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    draws
        How many dropout masks to draw, for a learner that returns one prediction a sample.

    Notes
    -----
    The score is the variance of K predictions, summed over the quantities (Krogh and Vedelsby, Neural network
    ensembles, cross validation, and active learning, NIPS 1995; Burbidge, Rowland and King, Active learning for
    regression based on query by committee, IDEAL 2007). A learner or ``inference_fn`` that returns ``(K, B, T)``, such
    as an ensemble, gives them itself; ``(K, B, 1)`` for one quantity. Otherwise they are Monte-Carlo dropout (Gal and
    Ghahramani, Dropout as a Bayesian approximation, ICML 2016): K passes with dropout on, each with one mask for all
    samples, so that a sample's score doesn't depend on those beside it. Dropout counts where it is a module of the
    learner (`torch.nn.Dropout`, ``Dropout1d`` to ``Dropout3d``), not where it is a function called in ``forward``.

    The pool is streamed: K passes over it, memory O(K chunk + max_samples). It helps where the posterior knows what it
    doesn't know. It is known to hurt in large batches, where it asks for near-duplicates, and where the noise of the
    target differs from place to place, which it doesn't see.
    """

    def __init__(self, max_samples: int = 10, draws: int = 20) -> None:
        self._set_max_samples(max_samples)
        if draws < 2:
            raise UsageError(f"VarianceQuery: draws is {draws}; a variance needs at least 2.")
        self.draws = draws

    def check(self) -> None:
        """Refuse classes, and a learner without a posterior, before anything is trained."""
        info = self.driver.info
        check_regression(None if info is None else info.task)
        outputs = self.driver.probe()
        if outputs is None:
            return
        if check_values(outputs).dim() == 3:
            if len(outputs) < 2:
                raise UsageError("the learner returned one sample of a posterior, and a variance needs at least 2.")
        elif not has_dropout(self.driver.learner):
            raise UsageError(
                f"the learner {type(self.driver.learner).__name__} has no dropout, and its outputs of shape "
                f"{tuple(outputs.shape)} are no samples of a posterior. Give it dropout "
                "(--set learner.mlp.dropout=0.1), or let it return (K, B, T): the predictions of K models."
            )

    def score(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the variance of posterior samples (K, B, T): float64, shape (B,)."""
        return posterior_variance(samples)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the `max_samples` candidates of the largest variance, largest first."""
        best = top_k(self.driver, self.score, self.wanted, self._posterior(), samples=self.draws)
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())

    def _posterior(self) -> Callable[[Any], torch.Tensor]:
        """Return what maps inputs to posterior samples (K, B, T)."""
        outputs = self.driver.probe()
        if outputs is None or outputs.dim() == 3:
            return self.driver.infer
        return Dropout(self.driver.learner, self.driver.infer, self.draws, self.generator)
