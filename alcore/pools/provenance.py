"""Where samples are from, and what whoever labels them is shown: what `PoolProvenance` offers, and the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from alcore.pools.batches import item_at
from alcore.pools.tensor_pool import is_choosable


def named_values(pool: Any, samples: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return what a pool shows of samples, by name.

    Parameters
    ----------
    pool
        The pool to choose from, whose ``shown`` is called (`alcore.protocols.PoolProvenance`); None where it is not
        known. It is asked once for all samples, since one that reads a file may read it again for each call.
    samples
        Ids of samples.

    Returns
    -------
    dict
        By sample; a number is one of Python. Empty where the pool names no values.
    """
    shown = getattr(pool, "shown", None)
    columns: Mapping[str, Sequence[Any]] = shown(list(samples)) if callable(shown) and len(samples) else {}
    if not columns:
        return {}
    return {
        sample: {str(name): _plain(column[place]) for name, column in columns.items()}
        for place, sample in enumerate(samples)
    }


def units_of(pool: Any) -> dict[str, str]:
    """Return the units of named values, by name, as the attribute `units` of a pool gives them.

    Parameters
    ----------
    pool
        The pool to choose from; None where it is not known.

    Returns
    -------
    dict
        By name; values without a unit are left out. Empty where the pool knows no units.
    """
    units: Mapping[str, str] = getattr(pool, "units", None) or {}
    return {str(name): str(unit) for name, unit in units.items() if unit}


class Sources(NamedTuple):
    """Where the samples of a pool are in the file that they come from.

    Parameters
    ----------
    rows, lines
        By sample id, int64 (N,): the row from 0, and the line from 1; None where it is not known.
    """

    rows: torch.Tensor | None
    lines: torch.Tensor | None


def sources_of(pool: Any) -> Sources:
    """Return where the samples of a pool are in their file."""
    numbers = (getattr(pool, name, None) for name in ("source_rows", "source_lines"))
    return Sources(*(None if places is None else torch.as_tensor(places) for places in numbers))


def inputs_by_sample(pool: Any, samples: Sequence[int]) -> dict[int, Any]:
    """Return the learner's inputs of samples, read in one call.

    Parameters
    ----------
    pool
        The pool to choose from; None where it is not known.
    samples
        Ids of samples.

    Returns
    -------
    dict
        By sample, one item each of the batch, in its nesting. Empty where the pool doesn't give the inputs of its
        samples.
    """
    if not len(samples) or not is_choosable(pool):
        return {}
    batch = pool.inputs(torch.tensor(list(samples), dtype=torch.int64))
    return {sample: item_at(batch, place) for place, sample in enumerate(samples)}


def _plain(value: Any) -> Any:
    """Return a number of Python in place of an array, a tensor or a scalar of NumPy that is a single one."""
    single = isinstance(value, np.generic | np.ndarray | torch.Tensor) and not value.ndim
    return value.item() if single else value
