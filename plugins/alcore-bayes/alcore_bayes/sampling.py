"""Posterior samples for a strategy: the learner's own, or by MC dropout."""

from __future__ import annotations

from typing import Any

import torch

from alcore.errors import UsageError
from alcore.outputs import MCDropout, check_outputs, first_rows
from alcore.protocols import RunContext
from alcore.randomness import preserve_rng_state


class PosteriorSamples:
    """Maps inputs to posterior samples of the same models for all chunks of a pool.

    Parameters
    ----------
    context
        The run, with its learner.
    samples
        Number of samples that MC dropout draws, K; not used if the learner returns (K, B, C).
    seed
        Seed of the dropout masks.
    """

    def __init__(self, context: RunContext, samples: int, seed: int) -> None:
        self._context, self._samples, self._seed = context, samples, seed
        self._dropout: MCDropout | None = None

    def __call__(self, inputs: Any) -> torch.Tensor:
        """Return posterior samples (K, B, C), or (K, B, 1) for one output column.

        Parameters
        ----------
        inputs
            A batch of the pool's inputs, B samples.

        Raises
        ------
        UsageError
            If the learner returns one output a sample and has no dropout layer, or returns one posterior sample.
        """
        if self._dropout is None:
            outputs = check_outputs(self._context.infer(inputs))
            if outputs.dim() == 3:
                return _several(outputs, self._context.learner)
            self._dropout = MCDropout(self._context.learner, self._samples, self._seed)
        return self._dropout(lambda: check_outputs(self._context.infer(inputs)))


def check_samples(strategy: str, samples: int) -> int:
    """Return `samples` if it is at least 2, else raise `UsageError`."""
    if samples < 2:
        raise UsageError(
            f"{strategy}: samples is {samples}; at least 2 posterior samples are needed, since one can't disagree."
        )
    return samples


def check_source(context: RunContext, samples: int) -> torch.Tensor | None:
    """Return posterior samples for up to two candidates, or None if there is no candidate.

    Raises
    ------
    UsageError
        If the task is not classification, or this learner gives no posterior samples.
    """
    if context.info is not None and context.info.task != "classification":
        raise UsageError(
            f"it compares class probabilities, and the task of this data is {context.info.task}; use another query "
            "strategy."
        )
    ids = next(context.candidates(2), None)
    if ids is None:
        return None
    context.probe()
    source, n = PosteriorSamples(context, samples, 0), len(ids)
    with preserve_rng_state():
        outputs: torch.Tensor = first_rows(source(context.choice_pool.inputs(ids)), n, n)
        source(
            context.choice_pool.inputs(ids[:1].repeat(3))
        )  # raises if the samples are not on the first axis of a dropout layer's input
    return outputs


def _several(outputs: torch.Tensor, learner: Any) -> torch.Tensor:
    if outputs.shape[0] < 2:
        raise UsageError(
            f"the learner {type(learner).__name__} returned {outputs.shape[0]} sample of the posterior, of shape "
            f"{tuple(outputs.shape)}; at least 2 are needed, since one can't disagree: (K, B, C)."
        )
    return outputs
