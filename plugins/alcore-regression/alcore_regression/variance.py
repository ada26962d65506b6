"""Posterior variance: the spread of posterior samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alcore.errors import UsageError
from alcore.inference import top_k
from alcore.outputs import MCDropout, dropout_layers, kind_of, means_of
from alcore.protocols import QueryQueue
from alcore.strategies import BaseQuery
from alcore_regression.outputs import check_probe, check_regression


def posterior_variance(samples: torch.Tensor) -> torch.Tensor:
    """Return the variance of the predictions of K models, summed over the quantities.

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
    """Ask for the samples about which the posterior samples agree least.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    draws
        Number of dropout masks to draw, K; not used if the learner returns (K, B, T).

    Notes
    -----
    The score is the variance of K predictions, summed over the quantities (Krogh and Vedelsby, Neural network
    ensembles, cross validation, and active learning, NIPS 1995; Burbidge, Rowland and King, Active learning for
    regression based on query by committee, IDEAL 2007). They are
    the outputs of a learner or ``inference_fn`` that returns ``(K, B, T)``, such as an ensemble, or ``(K, B, 1)`` for
    one quantity. Otherwise they come from Monte Carlo dropout (Gal and Ghahramani, Dropout as a Bayesian approximation,
    ICML 2016): K passes with dropout active, each with one mask for all samples, so that the score of a sample is
    independent of the others. Dropout must be a module of the learner (`torch.nn.Dropout`, ``Dropout1d`` to
    ``Dropout3d``, `torch.nn.AlphaDropout`), not a function that ``forward`` calls; see `alcore.outputs.MCDropout`.

    The pool is streamed: K passes over it, memory O(K chunk + max_samples). It helps where the posterior variance is
    high where the learner is wrong. It is known to hurt in large batches, where it asks for near-duplicates, and where
    the noise of the target varies over the inputs, which it ignores.
    """

    def __init__(self, max_samples: int = 10, draws: int = 20) -> None:
        self.set_max_samples(max_samples)
        if draws < 2:
            raise UsageError(f"VarianceQuery: draws is {draws}; a variance needs at least 2.")
        self.draws = draws

    def check(self) -> None:
        """Raise `UsageError` for classification, and for a learner without posterior samples."""
        info = self.driver.info
        check_regression(None if info is None else info.task)
        outputs = check_probe(self.driver)
        if outputs is None:
            return
        if outputs.dim() > 3:
            raise UsageError(
                f"the learner returned fields of shape {tuple(outputs.shape)}; flatten their values to (B, T), or let "
                "it return (K, B, T): the predictions of K models."
            )
        if outputs.dim() == 3:
            if len(outputs) < 2:
                raise UsageError("the learner returned one sample of a posterior, and a variance needs at least 2.")
        elif not dropout_layers(self.driver.learner):
            raise UsageError(
                f"the learner {type(self.driver.learner).__name__} has no dropout, and its outputs of shape "
                f"{tuple(outputs.shape)} are not samples of a posterior. Give it dropout "
                "(--set learner.mlp.dropout=0.1), or let it return (K, B, T): the predictions of K models. For a "
                "variance that the learner predicts itself there is --query max-variance."
            )

    def score(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the variance of posterior samples (K, B, T), without the variances they predict: float64, (B,)."""
        return posterior_variance(means_of(samples, kind_of(self.driver.learner, "regression")))

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the `max_samples` candidates of the largest variance, largest first."""
        best = top_k(self.driver, self.score, self.wanted, self._posterior(), samples=self.draws)
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())

    def _posterior(self) -> Callable[[Any], torch.Tensor]:
        """Return what maps inputs to posterior samples (K, B, T)."""
        outputs = self.driver.probe()
        if outputs is None or outputs.dim() == 3:
            return self.driver.infer
        sampler = MCDropout(self.driver.learner, self.draws, uniform=self._uniform, scale_dtype=torch.float64)
        return lambda inputs: sampler(lambda: self.driver.infer(inputs)).contiguous()

    def _uniform(self, layer: str, call: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Return uniform numbers for K masks, shape (K, *shape); those of mask k are the same for any K."""
        of_mask = [1, *shape]
        names = (f"{draw} {layer} {call + 1} {of_mask}" for draw in range(self.draws))
        return torch.cat([torch.rand(of_mask, generator=self.generator(name)) for name in names])
