"""The state of a label strategy: committed with each answer, since a label strategy is never replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from alcore.codec import dumps, loads
from alcore.driver.state import global_generators, set_global_generators


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
        self._inside = False
        self._step = -1
        self._rng: Any = None
        self._resumed: dict[str, Any] | None = None if saved is None else loads(saved)
        if self._resumed is not None:
            self._step, self._rng = self._resumed["step"], self._resumed["rng"]
            if self._resumed["strategy"]:
                strategy.load_state_dict(self._resumed["strategy"])

    @contextlib.contextmanager
    def phase(self, step: int) -> Iterator[None]:
        """Let the strategy draw from where it was, and put the global generators back afterwards."""
        if not self._draws:
            self._step = step
            yield
            return
        generators = global_generators()
        self._before = dumps(generators)
        if self._resumed is not None and self._resumed["step"] == step and self._resumed["rng"] is not None:
            set_global_generators(self._resumed["rng"])
        if self._resumed is not None and step >= self._resumed["step"]:  # until then the phases are on record
            self._resumed = None
        if self._resumed is None:
            self._inside, self._step = True, step
        try:
            yield
        finally:
            self._inside = False
            if dumps(global_generators()) != self._before:
                set_global_generators(generators)

    def commit(self) -> str | None:
        """Return what to store with an answer, or None where there is nothing.

        Outside a phase the global generators are not the strategy's: what was committed in the last one is kept.
        """
        own = dict(self._strategy.state_dict()) if self._has_state else {}
        if self._inside:
            now = global_generators()
            self._rng = now if dumps(now) != self._before else None
        rng = self._rng
        return dumps({"step": self._step, "strategy": own, "rng": rng}) if own or rng is not None else None


def value_check(pool: Any) -> Callable[[Any], str | None]:
    """Return what says what is wrong with a label's value: the pool's own check, if it has one."""
    check = getattr(pool, "check", None)
    return check if callable(check) else _anything_goes


def _anything_goes(_value: Any) -> None:
    return None
