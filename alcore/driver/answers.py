"""Single answers: whether one can be a label, how it is stored, and the labeled item that it stands for."""

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
from alcore.pools.tensor_pool import as_sample_id
from alcore.protocols import Failed, Label, Request
from alcore.store.tables import AcceptedLabel


class BadAnswerError(Exception):
    """An answer that can't be a label."""


def accepted_label(
    request: Request, answer: Any, check: Callable[[Any], str | None], cost: Callable[[Any], float]
) -> AcceptedLabel:
    """Return an answer to a request as it is stored.

    Parameters
    ----------
    request
        What it answers.
    answer
        What was put.
    check
        Returns what is wrong with the value of a label, or None.
    cost
        Returns what a label costs that doesn't say so itself.

    Raises
    ------
    BadAnswerError, alcore.errors.EncodingError
        When it can't be a label.
    """
    if isinstance(answer, Failed):
        raise BadAnswerError(answer.reason)
    if isinstance(answer, Label):
        paid: Any = answer.cost
        if not (isinstance(paid, numbers.Real) and math.isfinite(paid) and float(paid) >= 0):
            raise BadAnswerError(f"its cost is {answer.cost!r}, which is not a number of at least 0")
        if not isinstance(answer.source, str):
            raise BadAnswerError(f"its source is {answer.source!r}, which is not a text")
        if isinstance(answer.item, Request):  # a pool knows nothing of requests
            answer = dataclasses.replace(answer, item=request.item)
        if fault := _not_finite(answer.value) or _fault_of(answer.value, check):
            raise BadAnswerError(fault)
        return AcceptedLabel(request, answer, "label", answer.source, dumps(answer.value), float(answer.cost))
    expected = float(cost(request.item))
    if as_sample_id(answer) is not None and type(request.item) is int:
        return AcceptedLabel(request, request.item, "id", "", None, expected)
    if fault := _not_finite(answer):
        raise BadAnswerError(fault)
    return AcceptedLabel(request, answer, "object", "", dumps(answer), expected)


def as_text(answer: Any) -> str:
    """Return an answer as text for the record, exactly where that is possible."""
    try:
        if isinstance(answer, Label):
            return dumps({"item": _named(answer.item), "value": answer.value, "source": answer.source})
        if isinstance(answer, Failed):
            return dumps({"item": _named(answer.item)})
        return dumps(answer)
    except EncodingError:
        return repr(answer)[:1000]


def items_for_pool(accepted: Iterable[AcceptedLabel], unlabeled: Any) -> list[Any]:
    """Return what the training pool appends of some answers.

    Parameters
    ----------
    accepted
        The answers.
    unlabeled
        The pool that was chosen from, where that is not the training pool, else None. The training pool doesn't know
        its sample ids, so these answers are completed to items.
    """
    return [
        one.item if unlabeled is None else completed_item(one.request.item, one.kind, one.item, unlabeled)
        for one in accepted
    ]


def completed_item(asked: Any, kind: str, item: Any, pool: Any) -> Any:
    """Return the labeled item that an answer stands for, if it names a sample of another pool.

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
        return _first_row(pool.inputs(torch.tensor([asked]))), item.value
    return item


def value_check(pool: Any) -> Callable[[Any], str | None]:
    """Return the function that says what is wrong with the value of a label: the pool's ``check``, if it has one."""
    check = getattr(pool, "check", None)
    return check if callable(check) else lambda _value: None


def _first_row(batch: Any) -> Any:
    """Return the first sample of a batch of nested tensors."""
    if isinstance(batch, Mapping):
        return {key: _first_row(one) for key, one in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_first_row, batch))
    return type(batch)(map(_first_row, batch)) if isinstance(batch, tuple | list) else batch[0]


def _not_finite(value: Any) -> str | None:
    """Return the fault of a value that holds NaN or infinity, else None."""
    if isinstance(value, torch.Tensor):
        bad = (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all())
    elif isinstance(value, np.ndarray | np.generic):
        bad = value.dtype.kind in "fc" and not bool(np.isfinite(value).all())
    elif isinstance(value, float):
        bad = not math.isfinite(value)
    elif isinstance(value, Mapping):
        return next((fault for one in value.values() if (fault := _not_finite(one))), None)
    elif isinstance(value, list | tuple):
        return next((fault for one in value if (fault := _not_finite(one))), None)
    else:
        return None
    return "its value is NaN or infinite" if bad else None


def _fault_of(value: Any, check: Callable[[Any], str | None]) -> str | None:
    try:
        return check(value)
    except Exception as error:  # noqa: BLE001 - the pool's own check
        return f"the pool can't check it: {type(error).__name__}: {error}"


def _named(item: Any) -> Any:
    return item.id if isinstance(item, Request) else item
