"""Single answers: how they are stored, shown, and completed to items of the training pool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from alcore.codec import dumps, loads
from alcore.driver.answers import (
    AnswerCheck,
    BadAnswerError,
    accepted_label,
    append_labels,
    as_text,
    completed_item,
)
from alcore.driver.pool_set import PoolSet
from alcore.errors import EncodingError, UsageError
from alcore.pools import TensorPool
from alcore.protocols import DataInfo, Failed, Label, Request
from alcore.store.rows import AcceptedLabel

SAMPLE, TEXT = Request("a" * 32, 0, 0, 7), Request("b" * 32, 0, 1, "text")


def accept(request: Request, answer: Any, pool: Any = ()) -> AcceptedLabel:
    return accepted_label(request, answer, AnswerCheck(PoolSet(pool, None, None)), 2.0)


@pytest.mark.parametrize(
    ("request_", "answer", "expected"),
    [
        (SAMPLE, 7, (7, "id", "", None, 2.0)),
        (SAMPLE, torch.tensor(7), (7, "id", "", None, 2.0)),
        (SAMPLE, Label(7, 1, "ann", 0.5), (Label(7, 1, "ann", 0.5), "label", "ann", "1", 0.5)),
        (SAMPLE, Label(SAMPLE, 1), (Label(7, 1, cost=2.0), "label", "", "1", 2.0)),
        (SAMPLE, {"x": 1}, ({"x": 1}, "object", "", '{"x":1}', 2.0)),
        (TEXT, 3, (3, "object", "", "3", 2.0)),
    ],
)
def test_kind_source_value_and_cost_of_an_answer(request_: Request, answer: Any, expected: tuple[Any, ...]) -> None:
    assert repr(accept(request_, answer)[1:]) == repr(expected)  # labels are equal by identity alone


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "None is not a label"),
        (Label(7, None), "None is not a label"),
        (Label(7, math.nan), "NaN or infinite"),
        (Label(7, 1, cost=-1.0), "its cost is -1.0"),
        ([1.0, math.inf], "NaN or infinite"),
    ],
)
def test_bad_answers_are_refused_with_the_reason(answer: Any, reason: str) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        accept(SAMPLE, answer)


@pytest.mark.parametrize("answer", [Label(7, 1), {"x": 1}])
def test_check_of_a_pool_that_fails_is_a_reason_to_refuse(answer: Any) -> None:
    class Broken(list[Any]):
        def check(self, value: Any) -> None:
            raise ZeroDivisionError

        check_item = check

    with pytest.raises(BadAnswerError, match="the pool can't check it: ZeroDivisionError"):
        accept(SAMPLE, answer, Broken())


class Described(list[Any]):
    """A pool that says what its data is, and checks nothing itself."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.info = info


CLASSES = DataInfo("classification", 2, names=("ham", "spam"))


@pytest.mark.parametrize(
    ("value", "stored"),
    [("spam", 1), (1, 1), (1.0, 1), (np.float32(0), 0), (torch.tensor(1), torch.tensor(1)), ([0, 1], [0, 1])],
)
def test_value_of_a_class_is_stored_as_its_code(value: Any, stored: Any) -> None:
    accepted = accept(SAMPLE, Label(7, value), Described(CLASSES))
    assert accepted.value == dumps(stored)
    assert dumps(accepted.item.value) == dumps(stored)


@pytest.mark.parametrize(
    ("info", "value", "reason"),
    [
        (CLASSES, "spa", "'spa' is not one of the classes; did you mean 'spam'"),
        (CLASSES, 2, "not one of the 2 classes 0 to 1"),
        (CLASSES, 0.5, "a fraction; the code of a class is a whole number"),
        (CLASSES, {"a": 1}, "a dict is not a label; it must be the code of a class"),
        (CLASSES, 1j, "it is complex"),
        (CLASSES, 2**70, "too large"),
        (DataInfo("regression"), "high", "a str is not a label; it must be a number"),
        (DataInfo("regression"), [[1.0], [2.0, 3.0]], "a list is not a label"),
        (DataInfo("regression"), math.inf, "NaN or infinite"),
    ],
)
def test_value_that_does_not_fit_what_is_known_about_the_data_is_refused(
    info: DataInfo, value: Any, reason: str
) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        accept(SAMPLE, Label(7, value), Described(info))


def test_value_that_cannot_be_stored_is_an_encoding_error() -> None:
    with pytest.raises(EncodingError):
        accept(SAMPLE, Label(7, object()))
    with pytest.raises(EncodingError):
        accept(SAMPLE, range(3))


def test_text_of_an_answer_is_exact_where_that_is_possible() -> None:
    assert loads(as_text(Label(SAMPLE, 0.1, "ann"))) == {"item": SAMPLE.id, "value": 0.1, "source": "ann"}
    assert loads(as_text(Failed(7, "no"))) == {"item": 7}
    assert loads(as_text([1, 2])) == [1, 2]
    assert as_text(range(3)) == "range(0, 3)"
    assert len(as_text([object()] * 999)) == 1000


def test_items_are_completed_only_from_another_pool() -> None:
    pool = TensorPool(torch.arange(20.0).reshape(10, 2), torch.arange(10) % 3)
    answers = [accept(SAMPLE, 7), accept(TEXT, Label("text", 2))]
    train: list[Any] = []
    append_labels(PoolSet(train, None, None), answers)
    append_labels(PoolSet(train, None, pool), answers)
    assert train[:2] == [7, answers[1].item]
    seven, text = train[2:]
    assert (seven[0].tolist(), int(seven[1])) == ([14.0, 15.0], 1)
    assert text is answers[1].item


def test_item_of_a_pool_without_answer_or_inputs_is_what_was_put() -> None:
    pool = ["item 0", "item 1"]
    assert completed_item(1, "id", 1, pool) == "item 1"
    label = Label(1, 0)
    assert completed_item(1, "label", label, pool) is label
    assert completed_item(1, "object", ("x", "y"), TensorPool(torch.zeros(2, 2))) == ("x", "y")
    with pytest.raises(UsageError, match="no targets"):
        completed_item(1, "id", 1, TensorPool(torch.zeros(2, 2)))


class Picky(list[Any]):
    """A training pool that refuses some items."""

    def append(self, item: Any) -> None:
        if isinstance(item, Exception | type):
            raise item
        super().append(item)


def test_item_that_the_pool_refuses_does_not_keep_the_others_from_it() -> None:
    pool, errors = Picky(), [UsageError("no"), TypeError("no"), ValueError("no"), IndexError("no")]
    answers = [AcceptedLabel(SAMPLE, item, "object", "", "", 1.0) for item in (1, *errors, 2)]
    assert append_labels(PoolSet(pool, None, None), answers) == list(zip(answers[1:-1], errors, strict=True))
    assert pool == [1, 2]


def test_other_error_of_the_pool_is_raised_when_the_others_are_appended() -> None:
    pool = Picky()
    answers = [AcceptedLabel(SAMPLE, item, "object", "", "", 1.0) for item in (MemoryError, KeyError, 2)]
    with pytest.raises(MemoryError):
        append_labels(PoolSet(pool, None, None), answers)
    assert pool == [2]
