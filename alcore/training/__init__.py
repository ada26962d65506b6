"""What the training phase consists of: loaders, steps, optimizer, class balance and several processes."""

from alcore.training.optimizer import Optimization, not_taken, resolve_train_step, resolve_validate_step

__all__ = ["Optimization", "not_taken", "resolve_train_step", "resolve_validate_step"]
