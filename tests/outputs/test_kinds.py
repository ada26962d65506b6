"""What learners return, in every form, means the same classes and probabilities."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore.errors import UsageError
from alcore.outputs.kinds import (
    binary_logits,
    check_outputs,
    class_probabilities,
    default_loss,
    is_binary,
    kind_of,
    predicted_classes,
)

logits = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=6).map(torch.tensor)
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])


def test_kind_of_outputs_is_the_learners_attribute() -> None:
    assert kind_of(object()) == "logits"
    assert kind_of(SimpleNamespace(outputs="probabilities")) == "probabilities"
    with pytest.raises(UsageError, match=r"SimpleNamespace\.outputs is 'softmax'; it must be 'logits' or 'probab"):
        kind_of(SimpleNamespace(outputs="softmax"))


@pytest.mark.parametrize(
    ("shape", "binary"), [((4,), True), ((4, 1), True), ((4, 2), False), ((3, 4, 1), False), ((1, 4, 2), False)]
)
def test_one_column_is_two_classes(shape: tuple[int, ...], binary: bool) -> None:
    assert is_binary(torch.zeros(shape)) == binary


@given(logits)
def test_one_column_of_logits_in_each_form(values: torch.Tensor) -> None:
    expected = torch.sigmoid(values.double())
    for outputs in (values, values[:, None], torch.stack([torch.zeros_like(values), values], dim=1)):
        shares = class_probabilities(outputs, "logits")
        assert shares.shape == (len(values), 2)
        torch.testing.assert_close(shares[:, 1].double(), expected, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(values)))


@given(logits)
def test_the_class_of_one_column_of_logits(values: torch.Tensor) -> None:
    for outputs in (values, values[:, None]):
        assert predicted_classes(outputs, "logits").tolist() == (values >= 0).long().tolist()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6).map(torch.tensor))
def test_one_column_of_probabilities_in_each_form(values: torch.Tensor) -> None:
    for outputs in (values, values[:, None]):
        shares = class_probabilities(outputs, "probabilities")
        assert torch.equal(shares[:, 1], values)
        assert torch.equal(shares[:, 0], 1 - values)
        assert predicted_classes(outputs, "probabilities").tolist() == (values >= 0.5).long().tolist()


def test_a_tie_of_two_classes_is_the_positive_one() -> None:
    assert predicted_classes(torch.tensor([0.0]), "logits").tolist() == [1]
    assert predicted_classes(torch.tensor([[0.5]]), "probabilities").tolist() == [1]


def test_class_logits_and_probabilities() -> None:
    expected = torch.softmax(LOGITS, dim=1)
    torch.testing.assert_close(class_probabilities(LOGITS, "logits"), expected)
    assert torch.equal(class_probabilities(expected, "probabilities"), expected)
    assert predicted_classes(LOGITS, "logits").tolist() == [0, 1]
    assert predicted_classes(expected, "probabilities").tolist() == [0, 1]


def test_posterior_samples_are_averaged_as_probabilities() -> None:
    posterior = torch.tensor([[[9.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])  # by vote it would be class 1
    expected = torch.softmax(posterior, dim=-1).mean(dim=0)
    assert torch.equal(class_probabilities(posterior, "logits"), expected)
    assert predicted_classes(posterior, "logits").tolist() == [0]
    assert torch.equal(class_probabilities(torch.softmax(posterior, -1), "probabilities"), expected)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_posterior_samples_of_one_column_are_two_classes(kind: str) -> None:
    posterior = torch.tensor([[[0.9], [0.2]], [[0.7], [0.4]]])
    positive = posterior if kind == "probabilities" else torch.sigmoid(posterior)
    shares = class_probabilities(posterior, kind)
    torch.testing.assert_close(shares[:, 1], positive.mean(dim=0)[:, 0])
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    assert predicted_classes(posterior, kind).tolist() == (shares[:, 1] > 0.5).long().tolist()


def test_binary_logits_of_either_kind() -> None:
    values = torch.tensor([-2.0, 0.0, 3.0])
    assert torch.equal(binary_logits(values, "logits"), values)
    assert torch.equal(binary_logits(values[:, None], "logits"), values)
    torch.testing.assert_close(binary_logits(torch.sigmoid(values)[:, None], "probabilities"), values)


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        ((torch.zeros(2),), "returned a tuple, not a tensor; give the Driver an inference_fn"),
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.zeros(1, 2, 3, 4), r"shape \(1, 2, 3, 4\)"),
        (torch.zeros(3, dtype=torch.int64), r"torch\.int64 tensor"),
    ],
)
def test_other_outputs_are_refused(outputs: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check_outputs(outputs)


# -- losses ----------------------------------------------------------------------------------------------


def loss(task: str, kind: str, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return default_loss(task, kind)(lambda inputs: inputs, (outputs, targets))


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_two_classes(column: bool, shaped: bool, dtype: torch.dtype) -> None:
    outputs, targets = torch.tensor([2.0, -1.0]), torch.tensor([1, 0], dtype=dtype)
    expected = -(torch.sigmoid(outputs).log()[0] + torch.sigmoid(-outputs).log()[1]) / 2
    given_outputs = outputs[:, None] if column else outputs
    given_targets = targets[:, None] if shaped else targets
    torch.testing.assert_close(loss("classification", "logits", given_outputs, given_targets), expected)
    probabilities = torch.sigmoid(given_outputs)
    torch.testing.assert_close(loss("classification", "probabilities", probabilities, given_targets), expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_more_classes(dtype: torch.dtype) -> None:
    targets = torch.tensor([2, 1], dtype=dtype)
    expected = -torch.log_softmax(LOGITS, dim=1)[[0, 1], [2, 1]].mean()
    torch.testing.assert_close(loss("classification", "logits", LOGITS, targets), expected)
    torch.testing.assert_close(loss("classification", "probabilities", LOGITS.softmax(1), targets), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regression_never_spreads_targets_over_columns(shape: tuple[int, ...]) -> None:
    outputs, targets = torch.tensor([1.0, 2.0, 4.0]).reshape(shape), torch.tensor([1, 1, 1])
    assert loss("regression", "logits", outputs, targets) == pytest.approx(10 / 3)
    assert loss("regression", "logits", outputs, targets.double()).dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "known"),
    [((3, 4), (3, 4)), ((3, 4, 5), (3, 4, 5)), ((3, 1, 4, 5), (3, 4, 5)), ((3, 20), (3, 4, 5)), ((3, 4, 5), (3, 20)),
     ((3, 2, 4, 5), (3, 2, 4, 5)), ((), (1,)), ((1,), (1, 1))],
    ids=str,
)  # fmt: skip
def test_regression_compares_each_value_of_a_field_with_its_target(given: Any, known: Any) -> None:
    targets = torch.randn(known)
    outputs = targets.reshape(given) + torch.arange(targets.numel()).reshape(given)
    expected = torch.arange(targets.numel()).square().sum() / targets.numel()
    torch.testing.assert_close(loss("regression", "logits", outputs, targets), expected)


@pytest.mark.parametrize(
    ("given", "known"),
    [((3, 2), (3,)), ((3, 1), (2,)), ((3, 4, 5), (3, 5, 4)), ((2, 3, 4), (3, 4)), ((3, 2, 10), (3, 4, 5)),
     ((6, 2), (3, 4)), ((1, 3), (3,))],
    ids=str,
)  # fmt: skip
def test_regression_refuses_targets_of_other_quantities(given: Any, known: Any) -> None:
    with pytest.raises(UsageError, match=f"outputs of shape {re.escape(str(given))} for targets of shape"):
        loss("regression", "logits", torch.zeros(given), torch.zeros(known))


def test_a_loss_can_be_learned_from() -> None:
    model = torch.nn.Linear(2, 1)
    default_loss("classification", "logits")(model, (torch.ones(3, 2), torch.tensor([0, 1, 1]))).backward()
    assert model.weight.grad is not None
