"""What running the learner over a pool needs of a run."""

from __future__ import annotations

from typing import Protocol, cast

from alcore.distributed.ranks import Ranks
from alcore.inference.features import FeatureCache
from alcore.protocols import RunContext


class InferenceContext(RunContext, Protocol):
    """A run with what `alcore.inference` uses beyond `RunContext`; every `alcore.Driver` is one."""

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share the work; while this rank works by itself, this rank alone."""

    def warn_once(self, message: str) -> None:
        """Log a warning, unless the run has logged it already."""

    @property
    def feature_cache(self) -> FeatureCache:
        """The features that were computed for the current state of the learner."""


def inference_context(context: RunContext) -> InferenceContext:
    """Return the same run, with the members that `InferenceContext` adds.

    Plugins are given a `RunContext`, so the functions of this package take one. Its object is a Driver, which has them.
    """
    return cast(InferenceContext, context)
