"""What a labeler is given of a request: the sample, its named values and the learner's input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alcore.pools import as_sample_id, is_choosable
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
        Values by name, where the pool names them (`alcore.protocols.PoolOptions.shown`), or where the generated input
        is a mapping; else empty.
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
        What `shown_values` returned earlier; the pool is not asked for the values of these samples again.
    """
    pool = driver.choice_pool
    samples = [as_sample_id(one.item) for one in requests]
    known = [sample for sample in samples if sample is not None]
    named = dict(shown or {})
    named |= shown_values(driver, [sample for sample in known if sample not in named])
    batch = pool.inputs(torch.tensor(known, dtype=torch.int64)) if known and is_choosable(pool) else None
    places = iter(range(len(known)))
    items = []
    for request, sample in zip(requests, samples, strict=True):
        if sample is None:
            item = as_numpy(request.item)
            values = {str(name): _plain(value) for name, value in item.items()} if isinstance(item, Mapping) else {}
            items.append(Item(request, None, values, item))
        else:
            items.append(Item(request, sample, dict(named.get(sample, {})), as_numpy(batch, next(places))))
    return items


def shown_values(driver: RunContext, samples: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the named values of samples, by sample; empty where the pool names none.

    A pool may read its file again for each call, so what is read one by one is better read here for many samples.
    """
    shown = getattr(driver.choice_pool, "shown", None)
    columns: Mapping[str, Sequence[Any]] = shown(list(samples)) if samples and callable(shown) else {}
    return {
        sample: {str(name): _plain(column[place]) for name, column in columns.items()}
        for place, sample in enumerate(samples if columns else ())
    }


def as_numpy(batch: Any, place: int | None = None) -> Any:
    """Return a copy of a batch with arrays of NumPy in place of its tensors, or of one item of the batch.

    Parameters
    ----------
    batch
        Tensors and arrays in tuples, lists and mappings of any depth; other leaves are returned as they are.
    place
        The item's place in the batch, or None if `batch` is one item.
    """
    if isinstance(batch, Mapping):
        return {key: as_numpy(one, place) for key, one in batch.items()}
    if isinstance(batch, tuple | list):
        made = [as_numpy(one, place) for one in batch]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    if isinstance(batch, torch.Tensor):
        leaf = (batch if place is None else batch[place]).detach().cpu()
        return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy().copy()  # NumPy has no bfloat16
    if isinstance(batch, np.ndarray):
        return (batch if place is None else np.asarray(batch[place])).copy()
    return batch


def _plain(value: Any) -> Any:
    """Return a number of Python in place of an array, a tensor or a scalar of NumPy that is a single one."""
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.item() if value.ndim == 0 else as_numpy(value)
    return value
