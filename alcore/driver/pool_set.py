"""The pools of a run."""

from __future__ import annotations

from typing import Any, NamedTuple

from alcore.pools.tensor_pool import is_choosable
from alcore.protocols import DataInfo


class PoolSet(NamedTuple):
    """The pools of a run: what is trained on, what is held out, and what is chosen from; each may be None."""

    train: Any
    validation: Any
    unlabeled: Any

    @property
    def choice(self) -> Any:
        """The pool that samples are chosen from."""
        return self.train if self.unlabeled is None else self.unlabeled

    @property
    def info(self) -> DataInfo | None:
        """What is known about the data, if a pool says."""
        info = getattr(self.train, "info", None) or getattr(self.choice, "info", None)
        return info if isinstance(info, DataInfo) else None

    @property
    def choosable(self) -> bool:
        """Whether the pool to choose from lists its unlabeled samples and gives their inputs."""
        return is_choosable(self.choice)

    def identified(self) -> dict[str, Any]:
        """Return the pools whose initial state belongs to the run, by name."""
        named = {"train": self.train, "unlabeled": self.unlabeled}
        return {name: pool for name, pool in named.items() if pool is not None}
