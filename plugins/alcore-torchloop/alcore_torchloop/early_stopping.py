"""Early stopping: end a training when the validation loss stops improving, and restore the best weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


class EarlyStopping:
    """Counts the epochs since the lowest validation loss, and keeps the weights of that epoch.

    Parameters
    ----------
    model
        The model, whose weights are kept.
    epochs
        Number of epochs without a lower loss after which the training ends.
    min_delta
        Amount by which a loss must be lower.
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

    def add(self, loss: float) -> None:
        """Add the validation loss of an epoch."""
        if self._best is None or loss < self._best - self._min_delta:
            self._best, self._worse = loss, 0
            self._weights = copy.deepcopy(dict(self._model.state_dict()))
        else:
            self._worse += 1

    def restore_best(self) -> None:
        """Load the weights of the best epoch into the model."""
        if self._weights:
            self._model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must have back."""
        return {"best": self._best, "worse": self._worse, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._best, self._worse, self._weights = state["best"], state["worse"], dict(state["weights"])
