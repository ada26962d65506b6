"""Where a strategy gets its posterior samples from: the learner itself, or MC dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from alcore.errors import UsageError
from alcore.inference import check_outputs, first_rows
from alcore.randomness import preserve_rng_state
from alcore.inference.dropout import DropoutSampler

if TYPE_CHECKING:
    from alcore.driver import Driver


class PosteriorSamples:
    """Maps inputs to posterior samples, the same way for all chunks of a pool.

    Parameters
    ----------
    driver
        Gives the learner, and its outputs with ``inference_fn``.
    samples
        How many samples MC dropout draws, K. A learner that returns (K, B, C) says by itself how many.
    seed
        Of the dropout masks.
    """

    def __init__(self, driver: Driver, samples: int, seed: int) -> None:
        self._driver, self._samples, self._seed = driver, samples, seed
        self._dropout: DropoutSampler | None = None

    def __call__(self, inputs: Any) -> torch.Tensor:
        """Return posterior samples (K, B, C), or (K, B, 1) for one output column.

        Parameters
        ----------
        inputs
            A batch of the pool's inputs, B samples.

        Raises
        ------
        UsageError
            When the learner returns one output a sample and has no dropout layer, or draws fewer than two samples.
        """
        if self._dropout is None:
            outputs = check_outputs(self._driver.infer(inputs))
            if outputs.dim() == 3:
                return _several(outputs, self._driver.learner)
            self._dropout = DropoutSampler(self._driver.learner, self._samples, self._seed)
        return self._dropout(lambda: check_outputs(self._driver.infer(inputs)))


def check_samples(strategy: str, samples: int) -> int:
    """Return a number of posterior samples, or raise `UsageError` where it is below 2."""
    if samples < 2:
        raise UsageError(
            f"{strategy}: samples is {samples}; there must be at least 2 samples of the posterior, which could differ."
        )
    return samples


def check_source(driver: Driver, samples: int) -> torch.Tensor | None:
    """Return posterior samples for a few candidates, or None where there is no candidate.

    Raises
    ------
    UsageError
        When the task is no classification, or there are no posterior samples to be had from this learner.
    """
    if driver.info is not None and driver.info.task != "classification":
        raise UsageError(
            f"it compares class probabilities, and the task of this data is {driver.info.task}; use another query "
            "strategy."
        )
    ids = next(driver.candidates(2), None)
    if ids is None:
        return None
    driver.probe()
    source, n = PosteriorSamples(driver, samples, 0), len(ids)
    with preserve_rng_state():
        outputs: torch.Tensor = first_rows(source(driver.choice_pool.inputs(ids)), n, n)
        source(driver.choice_pool.inputs(ids[:1].repeat(3)))  # finds a dropout layer whose first axis isn't the samples
    return outputs


def _several(outputs: torch.Tensor, learner: Any) -> torch.Tensor:
    if outputs.shape[0] < 2:
        raise UsageError(
            f"the learner {type(learner).__name__} returned {outputs.shape[0]} sample of the posterior, of shape "
            f"{tuple(outputs.shape)}; there must be at least 2, which could differ: (K, B, C)."
        )
    return outputs
