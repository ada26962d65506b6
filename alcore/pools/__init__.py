"""Pools of samples: which are labeled, which may be requested, and their inputs."""

from alcore.pools.batches import leaves_of, tensors_of, to_device
from alcore.pools.dataset_pool import DatasetPool
from alcore.pools.details import cost_of, inputs_by_sample, named_values, units_of
from alcore.pools.tensor_pool import TensorPool, as_sample_id, is_choosable, pool_digest
from alcore.protocols import Data, DataInfo

__all__ = [
    "Data",
    "DataInfo",
    "DatasetPool",
    "TensorPool",
    "as_sample_id",
    "cost_of",
    "inputs_by_sample",
    "is_choosable",
    "leaves_of",
    "named_values",
    "pool_digest",
    "tensors_of",
    "to_device",
    "units_of",
]
