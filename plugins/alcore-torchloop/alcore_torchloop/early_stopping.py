"""Early stopping: end a training when validation no longer gets better, and go back to the best weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


class Patience:
    """Counts the epochs since the lowest validation loss, and keeps the weights of that epoch.

    Parameters
    ----------
    model
        Whose weights are kept.
    epochs
        How many epochs without a lower loss end the training.
    min_delta
        By how much a loss must be lower to count.
    """

    def __init__(self, model: Any, epochs: int, min_delta: float = 0.0) -> None:
        self._model, self._epochs, self._min_delta = model, epochs, min_delta
        self._best: float | None = None
        self._weights: dict[str, Any] = {}
        self._worse = 0

    @property
    def ended(self) -> bool:
        """Whether the training is to end."""
        return self._worse >= self._epochs

    def look(self, loss: float) -> None:
        """Take in the validation loss of an epoch."""
        if self._best is None or loss < self._best - self._min_delta:
            self._best, self._worse = loss, 0
            self._weights = copy.deepcopy(dict(self._model.state_dict()))
        else:
            self._worse += 1

    def go_back(self) -> None:
        """Give the model the weights of the best epoch."""
        if self._weights:
            self._model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what an interruption must keep."""
        return {"best": self._best, "worse": self._worse, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._best, self._worse, self._weights = state["best"], state["worse"], dict(state["weights"])
