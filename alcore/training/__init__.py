"""The training phase: loaders, steps, optimizer and scheduler, class balance, several processes."""

from alcore.training.class_balance import ClassBalance, balanced_positions, balanced_weights
from alcore.training.loader import BatchLoader, LoaderFactory
from alcore.training.optimizer import Optimization
from alcore.training.trainer import Trainer

__all__ = [
    "BatchLoader",
    "ClassBalance",
    "LoaderFactory",
    "Optimization",
    "Trainer",
    "balanced_positions",
    "balanced_weights",
]
