"""Several processes that run one active-learning run together."""

from alcore.distributed.manager import DistributedManager, average, leave, manager_for, tell

__all__ = ["DistributedManager", "average", "leave", "manager_for", "tell"]
