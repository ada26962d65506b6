"""What a labeler is given of a request: the sample, its named values and the learner's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alcore.pools import as_sample_id, inputs_by_sample, named_values
from alcore.protocols import Request, RunContext


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """A request with what is known of its input.

    Parameters
    ----------
    request
        What is to be answered. Its ``id`` is the idempotency key.
    sample
        The sample id; None for a generated input.
    values
        Values by name, where the pool names them (`alcore.protocols.PoolProvenance.shown`), or where the generated
        input is a mapping; else empty.
    input
        The learner's input, or the generated one: arrays of NumPy in the nesting that it has. None where the pool does
        not give the inputs of its samples.
    """

    request: Request
    sample: int | None
    values: dict[str, Any]
    input: Any

    @property
    def named(self) -> dict[str, Any]:
        """The values by name; where there are none, the parts ``x0``, ``x1``, ... of an input of one dimension."""
        if self.values or np.ndim(self.input) != 1:
            return self.values
        return {f"x{place}": part.item() for place, part in enumerate(np.asarray(self.input))}


def read_items(
    driver: RunContext, requests: Sequence[Request], shown: Mapping[int, Mapping[str, Any]] | None = None
) -> list[Item]:
    """Return what is known of the inputs of requests, in their order; the pool is asked once for all of them.

    Parameters
    ----------
    driver
        The run; its `choice_pool` knows the samples.
    requests
        As ``queue_to_label.get_many`` returned them.
    shown
        What `alcore.pools.named_values` returned earlier; the pool is not asked for the values of these samples again.
    """
    samples = [as_sample_id(request.item) for request in requests]
    ids = [sample for sample in samples if sample is not None]
    shown = shown or {}
    named = named_values(driver.choice_pool, [sample for sample in ids if sample not in shown])
    inputs = inputs_by_sample(driver.choice_pool, ids)
    items = []
    for request, sample in zip(requests, samples, strict=True):
        if sample is None:
            item = as_numpy(request.item)
            values = {str(name): _plain(value) for name, value in item.items()} if isinstance(item, Mapping) else {}
            items.append(Item(request, None, values, item))
        else:
            values = {name: as_numpy(value) for name, value in (shown.get(sample) or named.get(sample, {})).items()}
            items.append(Item(request, sample, values, as_numpy(inputs.get(sample))))
    return items


def as_numpy(item: Any) -> Any:
    """Return a copy of an input with arrays of NumPy in place of its tensors.

    Parameters
    ----------
    item
        Tensors and arrays in tuples, lists and mappings of any depth; other leaves are returned as they are.
    """
    if isinstance(item, Mapping):
        return {key: as_numpy(member) for key, member in item.items()}
    if isinstance(item, tuple | list):
        made = [as_numpy(member) for member in item]
        return type(item)(*made) if hasattr(item, "_fields") else type(item)(made)
    if isinstance(item, torch.Tensor):
        leaf = item.detach().cpu()
        return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy().copy()  # NumPy has no bfloat16
    return item.copy() if isinstance(item, np.ndarray) else item


def _plain(value: Any) -> Any:
    """Return a number of Python in place of an array, a tensor or a scalar of NumPy with one number, else a copy."""
    single = isinstance(value, np.ndarray | np.generic | torch.Tensor) and value.ndim == 0
    return value.item() if single else as_numpy(value)
