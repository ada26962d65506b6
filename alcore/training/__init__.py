"""The training phase: loaders, steps, optimizer and scheduler, class balance, several processes."""

from alcore.training.class_balance import balanced_positions, balanced_weights
from alcore.training.loader import BatchLoader
from alcore.training.steps import resolve_train_step, resolve_validate_step

__all__ = [
    "BatchLoader",
    "balanced_positions",
    "balanced_weights",
    "resolve_train_step",
    "resolve_validate_step",
]
