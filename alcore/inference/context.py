"""What running the learner over a pool needs of a run."""

from __future__ import annotations

from typing import Protocol

from alcore.distributed.ranks import Ranks
from alcore.inference.features import FeatureCache
from alcore.protocols import RunContext


class InferenceContext(RunContext, Protocol):
    """A run with what `alcore.inference` uses beyond `RunContext`; a `alcore.Driver` is one."""

    @property
    def batch_size(self) -> int:
        """Items in a training batch."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share the work; one alone while this rank works by itself."""

    @property
    def feature_cache(self) -> FeatureCache:
        """Features that are known already."""
