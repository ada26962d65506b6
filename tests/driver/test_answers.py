"""Single answers: how they are stored, shown, and completed to items of the training pool."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from alcore.codec import loads
from alcore.driver.answers import (
    BadAnswerError,
    accepted_label,
    as_text,
    completed_item,
    items_for_pool,
    value_check,
)
from alcore.errors import EncodingError, UsageError
from alcore.pools import TensorPool
from alcore.protocols import Failed, Label, Request
from alcore.store.tables import AcceptedLabel

SAMPLE, TEXT = Request("a" * 32, 0, 0, 7), Request("b" * 32, 0, 1, "text")


def accept(request: Request, answer: Any, check: Any = lambda value: None) -> AcceptedLabel:
    return accepted_label(request, answer, check, lambda item: 2.0)


@pytest.mark.parametrize(
    ("request_", "answer", "expected"),
    [
        (SAMPLE, 7, (7, "id", "", None, 2.0)),
        (SAMPLE, torch.tensor(7), (7, "id", "", None, 2.0)),
        (SAMPLE, Label(7, 1, "ann", 0.5), (Label(7, 1, "ann", 0.5), "label", "ann", "1", 0.5)),
        (SAMPLE, Label(SAMPLE, 1), (Label(7, 1), "label", "", "1", 1.0)),
        (SAMPLE, {"x": 1}, ({"x": 1}, "object", "", '{"x":1}', 2.0)),
        (TEXT, 3, (3, "object", "", "3", 2.0)),
    ],
)
def test_kind_source_value_and_cost_of_an_answer(request_: Request, answer: Any, expected: tuple[Any, ...]) -> None:
    assert repr(accept(request_, answer)[1:]) == repr(expected)  # labels are equal by identity alone


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Failed(7, "no"), "^no$"),
        (Label(7, math.nan), "NaN or infinite"),
        (Label(7, 1, cost=-1.0), "its cost is -1.0"),
        ([1.0, math.inf], "NaN or infinite"),
    ],
)
def test_bad_answers_are_refused_with_the_reason(answer: Any, reason: str) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        accept(SAMPLE, answer)


def test_check_of_a_pool_that_fails_is_a_reason_to_refuse() -> None:
    with pytest.raises(BadAnswerError, match="the pool can't check it: ZeroDivisionError"):
        accept(SAMPLE, Label(7, 1), lambda value: 1 / 0)


def test_value_that_cannot_be_stored_is_an_encoding_error() -> None:
    with pytest.raises(EncodingError):
        accept(SAMPLE, Label(7, object()))


def test_text_of_an_answer_is_exact_where_that_is_possible() -> None:
    assert loads(as_text(Label(SAMPLE, 0.1, "ann"))) == {"item": SAMPLE.id, "value": 0.1, "source": "ann"}
    assert loads(as_text(Failed(7, "no"))) == {"item": 7}
    assert loads(as_text([1, 2])) == [1, 2]
    assert as_text(range(3)) == "range(0, 3)"
    assert len(as_text([object()] * 999)) == 1000


def test_pool_without_a_check_finds_no_fault() -> None:
    assert value_check(None)(object()) is None
    assert value_check(TensorPool(torch.zeros(2, 2), torch.tensor([0, 1])))(7) is not None


def test_items_are_completed_only_from_another_pool() -> None:
    pool = TensorPool(torch.arange(20.0).reshape(10, 2), torch.arange(10) % 3)
    answers = [accept(SAMPLE, 7), accept(TEXT, Label("text", 2))]
    assert items_for_pool(answers, None) == [7, answers[1].item]
    seven, text = items_for_pool(answers, pool)
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
