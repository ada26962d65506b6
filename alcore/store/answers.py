"""Answers by themselves: whether a value can be a label, and the item that an answer stands for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch


def completed_item(asked: Any, kind: str, item: Any, pool: Any) -> Any:
    """Return the labelled item that an answer stands for, if it names a sample of another pool.

    Parameters
    ----------
    asked
        What the request asked for.
    kind
        ``"id"``, ``"label"`` or ``"object"``.
    item
        What was put.
    pool
        The pool that was chosen from.
    """
    if type(asked) is not int:
        return item
    if kind == "id":
        return pool.answer(asked) if hasattr(pool, "answer") else pool[asked]
    if kind == "label" and hasattr(pool, "inputs"):
        return pool.inputs(torch.tensor([asked]))[0], item.value
    return item


def for_pool(delivered: Iterable[Any], unlabeled: Any) -> list[Any]:
    """Return what the training pool appends of some answers.

    Parameters
    ----------
    delivered
        The answers, as `alcore.store.history.delivered_in` returns them.
    unlabeled
        The pool that was chosen from, where that is not the training pool, else None: a sample id means nothing to
        the training pool then, and is completed to an item.
    """
    return [
        one.item if unlabeled is None else completed_item(one.request.item, one.kind, one.item, unlabeled)
        for one in delivered
    ]


def not_a_number(value: Any) -> str | None:
    """Say that a value holds NaN or infinity, or None if it doesn't."""
    if isinstance(value, torch.Tensor):
        bad = (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all())
    elif isinstance(value, np.ndarray | np.generic):
        bad = value.dtype.kind in "fc" and not bool(np.isfinite(value).all())
    elif isinstance(value, float):
        bad = not math.isfinite(value)
    elif isinstance(value, Mapping):
        return next((fault for one in value.values() if (fault := not_a_number(one))), None)
    elif isinstance(value, list | tuple):
        return next((fault for one in value if (fault := not_a_number(one))), None)
    else:
        return None
    return "its value is NaN or infinite" if bad else None
