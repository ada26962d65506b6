"""Pools of samples: what is labeled, what may be asked for, and their inputs."""

from alcore.pools.tensor_pool import Data, DataInfo, TensorPool, as_sample_id, is_choosable, pool_digest

__all__ = ["Data", "DataInfo", "TensorPool", "as_sample_id", "is_choosable", "pool_digest"]
