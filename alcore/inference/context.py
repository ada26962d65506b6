"""What running the learner over a pool needs of a run."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch

from alcore.distributed.ranks import Ranks
from alcore.inference.features import FeatureCache
from alcore.protocols import RunContext


class FeasibilityOfCandidates(Protocol):
    """Which candidates are likely to have no label; nothing is known outside of query phases, or where it is off."""

    def weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the probability of a label for candidates, (n,); None where scores are not to be weighted."""

    def kept(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that are likely to have a label."""

    def offered(self, ids: torch.Tensor) -> torch.Tensor:
        """Return those of some candidates that any strategy may be given."""

    def over(self, pool: Any) -> FeasibilityOfCandidates:
        """Return this for the samples of another pool with such inputs: points between the candidates, for instance."""


class InferenceContext(RunContext, Protocol):
    """A run with what `alcore.inference` uses beyond `RunContext`; every `alcore.Driver` is one."""

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share the work; while this rank works by itself, this rank alone."""

    def warn_once(self, message: str, *values: object) -> None:
        """Log a warning with these values in it, unless the run has logged it already, whatever its values were."""

    @property
    def feasibility(self) -> FeasibilityOfCandidates:
        """Which candidates are likely to have no label."""

    @property
    def feature_cache(self) -> FeatureCache:
        """The features that were computed for the current state of the learner."""


def inference_context(context: RunContext) -> InferenceContext:
    """Return the same run, with the members that `InferenceContext` adds.

    Plugins are given a `RunContext`, so the functions of this package take one. Its object is a Driver, which has them.
    """
    return cast(InferenceContext, context)
