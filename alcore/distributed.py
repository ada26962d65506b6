"""Device and process handling behind one object."""

from __future__ import annotations

import os

import torch

from alcore.errors import UsageError


class DistributedManager:
    """Which process this is, how many there are, and on which device it works.

    Parameters
    ----------
    device
        Where this process works; the GPU of its local rank, else the CPU, where it is None.

    Attributes
    ----------
    rank, local_rank, world_size : int
        Read from the environment that ``torchrun`` sets; 0, 0 and 1 without it.
    device : torch.device
        Where this process works.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size != 1:
            raise UsageError(
                f"DistributedManager: WORLD_SIZE is {self.world_size}, and this version of alcore runs in one "
                "process; start it without torchrun."
            )
        if device is None:
            device = f"cuda:{self.local_rank}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)

    @classmethod
    def initialize(cls) -> None:
        """Do nothing; constructing a manager is all it takes."""

    @property
    def distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1
