"""Pools of samples: which are labeled, which may be requested, and their inputs."""

from alcore.pools.batches import leaves_of, tensors_of, to_device
from alcore.pools.candidates import offers_parts, total_of, unlabeled_ids
from alcore.pools.dataset_pool import DatasetPool
from alcore.pools.offers import (
    answer_of,
    at_highest_fidelity,
    cost_of,
    evaluation_of,
    has_batch,
    knows_answers,
    labeled_ids,
    plain_items,
    pool_digest,
)
from alcore.pools.provenance import inputs_by_sample, named_values, sources_of, units_of
from alcore.pools.tensor_pool import TensorPool, as_sample_id, is_choosable
from alcore.protocols import Data, DataInfo

__all__ = [
    "Data",
    "DataInfo",
    "DatasetPool",
    "TensorPool",
    "answer_of",
    "as_sample_id",
    "at_highest_fidelity",
    "cost_of",
    "evaluation_of",
    "has_batch",
    "inputs_by_sample",
    "is_choosable",
    "knows_answers",
    "labeled_ids",
    "leaves_of",
    "named_values",
    "offers_parts",
    "plain_items",
    "pool_digest",
    "sources_of",
    "tensors_of",
    "to_device",
    "total_of",
    "unlabeled_ids",
    "units_of",
]
