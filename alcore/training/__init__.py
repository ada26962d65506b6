"""What the training phase consists of: loaders, steps, optimizer, class balance and several processes."""

from alcore.training.loader import BatchLoader
from alcore.training.optimizer import Optimization, not_taken, resolve_train_step, resolve_validate_step

__all__ = ["BatchLoader", "Optimization", "not_taken", "resolve_train_step", "resolve_validate_step"]
