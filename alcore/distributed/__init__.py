"""Several processes that run one active-learning run together."""

from alcore.distributed.group import RankError
from alcore.distributed.manager import DistributedManager, average

__all__ = ["DistributedManager", "RankError", "average"]
