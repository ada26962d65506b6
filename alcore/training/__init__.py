"""The training phase: loaders, steps, optimizer and scheduler, class balance, several processes."""

from alcore.training.fitting import FittingLoop
from alcore.training.loader import BatchLoader
from alcore.training.steps import resolve_train_step

__all__ = [
    "BatchLoader",
    "FittingLoop",
    "resolve_train_step",
]
