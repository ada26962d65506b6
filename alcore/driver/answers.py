"""Single answers: whether one can be a label, how it is stored, and the labeled item that it stands for."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import torch

from alcore.codec import dumps, storable
from alcore.driver.item_types import with_types
from alcore.driver.pool_set import PoolSet
from alcore.errors import EncodingError, UsageError
from alcore.pools.batches import first_item
from alcore.pools.offers import answer_of, item_check, knows_answers, label_check
from alcore.pools.tensor_pool import as_sample_id
from alcore.pools.values import class_code, value_fault
from alcore.protocols import DataInfo, Failed, Label, Request
from alcore.store.rows import AcceptedLabel

REFUSALS = (UsageError, TypeError, ValueError, IndexError)
"""Errors of a training pool's ``append`` that mean that the item is wrong."""


class BadAnswerError(Exception):
    """An answer that can't be a label."""


class AnswerCheck:
    """Finds out whether an answer can be a label of the data, before it is committed.

    Parameters
    ----------
    pools
        The training pool may have ``check`` and ``check_item``; else what is known about the data decides.
    info
        What is known about the data, where the pools are not known.
    """

    def __init__(self, pools: PoolSet, info: DataInfo | None = None) -> None:
        self._pools, self._info = pools, pools.info or info

    def value(self, value: Any) -> Any:
        """Return the value of a label as it is stored: of a class, its integer code.

        Raises
        ------
        BadAnswerError
            When it can't be one.
        """
        value, own = class_code(self._known(value), self._info), label_check(self._pools.train)
        _refuse_if(value_fault(value, None if own else self._info))
        _refuse_if(_fault_of(own, value) if own else None)
        return value

    def bare(self, request: Request, answer: Any) -> Any:
        """Return what a bare answer stands for: the sample id, a `Label`, or an object for the training pool.

        Raises
        ------
        BadAnswerError
            When the training pool can't append it.
        """
        sample = as_sample_id(answer)
        if sample is not None and type(request.item) is int:
            if not knows_answers(self._pools.choice):
                raise BadAnswerError(
                    f"sample {sample} was labeled by its id alone, and the pool doesn't know its label; deliver "
                    "alcore.Label(id, value)"
                )
            return request.item
        answer = self._known(answer)
        _refuse_if(value_fault(answer, None))
        if isinstance(answer, str) and self._info is not None and answer in self._info.names:
            return Label(request.item, self.value(answer))
        if sample is not None and self._pools.choosable:
            raise BadAnswerError(f"{sample} answers a generated input; deliver alcore.Label(request, value)")
        own = item_check(self._pools.train)
        _refuse_if(_fault_of(own, answer) if own else None)
        return answer

    def _known(self, value: Any) -> Any:
        """Return a value that another process may have told, with objects of the user's classes."""
        try:
            return with_types(value, self._pools)
        except UsageError as error:
            raise BadAnswerError(str(error).rstrip(".")) from error


def paid_for(answer: Any, expected: float) -> float:
    """Return what an answer cost: what it says itself, else what was expected.

    Raises
    ------
    BadAnswerError
        When what it says is not a cost.
    """
    if not isinstance(answer, (Label, Failed)):
        return expected
    cost: Any = answer.cost
    if type(cost) is float and 0 <= cost < math.inf:
        return cost
    if cost is None:
        return expected
    if not (isinstance(cost, numbers.Real) and math.isfinite(cost) and float(cost) >= 0):
        raise BadAnswerError(f"its cost is {cost!r}, which is not a number of at least 0")
    return float(cost)


def accepted_label(request: Request, answer: Any, check: AnswerCheck, expected: float) -> AcceptedLabel:
    """Return an answer to a request as it is stored.

    Parameters
    ----------
    request
        What it answers.
    answer
        What was put.
    check
        Refuses what can't be a label of the data.
    expected
        What a label costs that doesn't say so itself.

    Raises
    ------
    BadAnswerError, alcore.errors.EncodingError
        When it can't be a label.
    """
    paid = paid_for(answer, expected)
    if isinstance(answer, Label):
        if not isinstance(answer.source, str):
            raise BadAnswerError(f"its source is {answer.source!r}, which is not a text")
        item = request.item if isinstance(answer.item, Request) else answer.item  # a pool knows nothing of requests
        value = check.value(answer.value)
        if item is not answer.item or value is not answer.value or answer.cost is None:
            answer = dataclasses.replace(answer, item=item, value=value, cost=paid)
        return AcceptedLabel(request, answer, "label", storable(answer.source), dumps(answer.value), paid)
    item = check.bare(request, answer)
    if isinstance(item, Label):
        return AcceptedLabel(request, item, "label", "", dumps(item.value), paid)
    if type(item) is int and type(request.item) is int:
        return AcceptedLabel(request, item, "id", "", None, paid)
    return AcceptedLabel(request, item, "object", "", dumps(item), paid)


def withdrawal(reason: str) -> str:
    """Return the reason that is recorded where a request was withdrawn."""
    return f"withdrawn: {reason}" if reason else "withdrawn"


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


def append_labels(pools: PoolSet, accepted: Iterable[AcceptedLabel]) -> list[tuple[AcceptedLabel, Exception]]:
    """Append answers to the training pool, each even where another one fails.

    Parameters
    ----------
    pools
        Where samples are chosen from another pool, the training pool doesn't know their ids, so answers are completed
        to items.
    accepted
        The answers.

    Returns
    -------
    list
        The answers that the pool refused with one of `REFUSALS`, and the errors. The first error of another type is
        raised when all were tried.
    """
    accepted = list(accepted)
    for label in accepted if pools.train is not None else ():  # a class that isn't known is no fault of one answer
        _with_types(label.item, pools)
    refused: list[tuple[AcceptedLabel, Exception]] = []
    errors: list[Exception] = []
    for label in accepted if pools.train is not None else ():
        try:
            item = label.item if type(label.item) is int else _with_types(label.item, pools)
            if pools.unlabeled is not None:
                item = completed_item(label.request.item, label.kind, item, pools.unlabeled)
            pools.train.append(item)
        except REFUSALS as error:
            refused.append((label, error))
        except Exception as error:  # noqa: BLE001 - raised after the others were appended
            errors.append(error)
    if errors:
        raise errors[0]
    return refused


def _with_types(item: Any, pools: PoolSet) -> Any:
    """Return an answer with objects of the user's classes."""
    if not isinstance(item, Label):
        return with_types(item, pools)
    named, value = with_types(item.item, pools), with_types(item.value, pools)
    same = named is item.item and value is item.value
    return item if same else dataclasses.replace(item, item=named, value=value)


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
        answer = answer_of(pool)
        return pool[asked] if answer is None else answer(asked)
    if kind == "label" and hasattr(pool, "inputs"):
        return first_item(pool.inputs(torch.tensor([asked]))), item.value
    return item


def _fault_of(check: Callable[[Any], str | None], given: Any) -> str | None:
    try:
        return check(given)
    except Exception as error:  # noqa: BLE001 - the pool's own check
        return f"the pool can't check it: {type(error).__name__}: {error}"


def _refuse_if(fault: str | None) -> None:
    if fault:
        raise BadAnswerError(fault)


def _named(item: Any) -> Any:
    return item.id if isinstance(item, Request) else item
