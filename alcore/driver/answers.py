"""Answers by themselves: whether one can be a label, how it is stored, and the item that it stands for."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from alcore.codec import dumps
from alcore.errors import EncodingError
from alcore.pools import as_sample_id
from alcore.protocols import Failed, Label, Request
from alcore.store.history import Delivered


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


class BadAnswerError(Exception):
    """An answer that can't be a label."""


def delivered(
    request: Request, item: Any, check: Callable[[Any], str | None], cost: Callable[[Any], float]
) -> Delivered:
    """Return an answer to a request as it is stored.

    Parameters
    ----------
    request
        What it answers.
    item
        What was put.
    check
        Says what is wrong with a label's value, or None.
    cost
        Gives what a label costs that doesn't say so itself.

    Raises
    ------
    BadAnswerError, alcore.errors.EncodingError
        When it can't be a label.
    """
    if isinstance(item, Label):
        paid: Any = item.cost
        if not (isinstance(paid, numbers.Real) and math.isfinite(paid) and float(paid) >= 0):
            raise BadAnswerError(f"its cost is {item.cost!r}, which is no amount")
        if not isinstance(item.source, str):
            raise BadAnswerError(f"its source is {item.source!r}, which is no text")
        if isinstance(item.item, Request):  # to a pool, only what was asked for means anything
            item = dataclasses.replace(item, item=request.item)
        if fault := not_a_number(item.value) or _fault_of(item.value, check):
            raise BadAnswerError(fault)
        return Delivered(request, item, "label", item.source, dumps(item.value), float(item.cost))
    expected = float(cost(request.item))
    if as_sample_id(item) is not None and type(request.item) is int:
        return Delivered(request, request.item, "id", "", None, expected)
    if fault := not_a_number(item):
        raise BadAnswerError(fault)
    return Delivered(request, item, "object", "", dumps(item), expected)


def _fault_of(value: Any, check: Callable[[Any], str | None]) -> str | None:
    try:
        return check(value)
    except Exception as error:  # noqa: BLE001 - the pool's own check
        return f"the pool can't check it: {type(error).__name__}: {error}"


def as_text(item: Any) -> str:
    """Return an item as text for the record, exactly where that is possible."""
    try:
        if isinstance(item, Label):
            return dumps({"item": _named(item.item), "value": item.value, "source": item.source})
        if isinstance(item, Failed):
            return dumps({"item": _named(item.item)})
        return dumps(item)
    except EncodingError:
        return repr(item)[:1000]


def _named(item: Any) -> Any:
    return item.id if isinstance(item, Request) else item
