"""The state of a label strategy: committed with each answer, since a label strategy is never replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from alcore.state import global_generators, set_global_generators
from alcore.store.codec import dumps, loads


class LabelerState:
    """Keeps what the next answer depends on: the strategy's own state, and the global generators it draws from.

    Parameters
    ----------
    strategy
        The label strategy, or None.
    saved
        What `commit` returned last, if the run is taken up again.

    Notes
    -----
    What a label strategy draws from the global generators is its own: they are put back after the phase, so that
    a phase that was cut off and one that was not leave the same state behind. A strategy that declares
    ``labels_by_id`` draws nothing, and is spared the comparison.
    """

    def __init__(self, strategy: Any, saved: str | None = None) -> None:
        self._strategy = strategy
        self._has_state = callable(getattr(strategy, "state_dict", None))
        self._draws = not getattr(strategy, "labels_by_id", False)
        self._before: str | None = None
        self._step = -1
        self._resumed: dict[str, Any] | None = None if saved is None else loads(saved)
        if self._resumed is not None and self._resumed["strategy"]:
            strategy.load_state_dict(self._resumed["strategy"])

    @contextlib.contextmanager
    def phase(self, step: int) -> Iterator[None]:
        """Let the strategy draw from where it was, and put the global generators back afterwards."""
        self._step = step
        if not self._draws:
            yield
            return
        generators = global_generators()
        self._before = dumps(generators)
        if self._resumed is not None and self._resumed["step"] == step and self._resumed["rng"] is not None:
            set_global_generators(self._resumed["rng"])
        self._resumed = None
        try:
            yield
        finally:
            if dumps(global_generators()) != self._before:
                set_global_generators(generators)

    def commit(self) -> str | None:
        """Return what to store with an answer, or None where there is nothing."""
        own = dict(self._strategy.state_dict()) if self._has_state else {}
        rng = None
        if self._draws and self._before is not None:
            now = global_generators()
            rng = now if dumps(now) != self._before else None
        return dumps({"step": self._step, "strategy": own, "rng": rng}) if own or rng is not None else None
