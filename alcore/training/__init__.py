"""The training phase: loaders, steps, optimizer and scheduler, class balance, several processes."""

from alcore.training.class_balance import ClassBalance, balanced_positions, balanced_weights
from alcore.training.loader import BatchLoader, LoaderFactory
from alcore.training.optimizer import Optimization
from alcore.training.steps import resolve_train_step, resolve_validate_step
from alcore.training.trainer import Trainer

__all__ = [
    "BatchLoader",
    "ClassBalance",
    "LoaderFactory",
    "Optimization",
    "Trainer",
    "balanced_positions",
    "balanced_weights",
    "resolve_train_step",
    "resolve_validate_step",
]
