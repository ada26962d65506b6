"""A pool of the samples of a map-style dataset, such as those of torchvision."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import default_collate

from alcore.errors import UsageError
from alcore.pools.batches import tensors_of
from alcore.pools.tensor_pool import TensorPool
from alcore.pools.values import value_fault
from alcore.protocols import DataInfo, Label
from alcore.tensors import bytes_of

_DIGEST_SAMPLES = 64


class MapDataset(Sized, Protocol):
    """A map-style dataset, such as `torch.utils.data.Dataset` with ``__len__``."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""
