"""Going backward on a CPU gives the gradients of ``loss.backward()``, and its errors."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from alcore_torchloop import backward
from alcore_torchloop.backward import compute_gradients
from torch.overrides import TorchFunctionMode


class Calls:
    """Counts calls of torch's engine that it is given directly."""

    def __init__(self, monkeypatch: Any) -> None:
        self.count, run = 0, backward._engine()
        assert run is not None

        def counted(*args: Any) -> None:
            self.count += 1
            run(*args)

        monkeypatch.setattr(backward, "_engine", lambda: counted)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def network(kind: str, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if kind == "cnn":
        parts = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()]
        return torch.nn.Sequential(*parts, torch.nn.LazyLinear(1)).to(dtype), torch.randn(5, 3, 8, 8, dtype=dtype)
    if kind == "attention":
        return torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0).to(dtype), torch.randn(5, 3, 8, dtype=dtype)
    return torch.nn.GRUCell(6, 4).to(dtype), torch.randn(5, 6, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["cnn", "attention", "recurrent"])
def test_gradients_are_the_same_to_the_bit(calls: Calls, kind: str, dtype: torch.dtype) -> None:
    model, inputs = network(kind, dtype)
    results = []
    for go in (compute_gradients, torch.Tensor.backward):
        model(inputs)  # a lazy layer gets its weights here
        model.zero_grad()
        for _ in range(2):  # gradients add up
            go(model(inputs).square().mean())
        results.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *results))
    assert calls.count == 2


def test_hooks_are_called_and_may_change_the_gradient_in_place(calls: Calls) -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    seen: list[float] = []
    weight.register_post_accumulate_grad_hook(lambda one: seen.append(one.grad.item()))  # type: ignore[union-attr]
    for _ in range(2):
        weight.grad = None
        loss = weight * 1
        loss.register_hook(lambda gradient: gradient.mul_(3))
        compute_gradients(loss)
    assert seen == [3.0, 3.0]
    assert calls.count == 2


def test_a_loss_that_is_a_parameter_has_a_gradient_of_its_own(calls: Calls) -> None:
    one, other = (torch.nn.Parameter(torch.tensor(1.0)) for _ in range(2))
    for weight in (one, other):
        compute_gradients(weight + 0)
    assert one.grad is not None
    one.grad.add_(5)
    assert other.grad == 1


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda weight: weight.expand(3), "scalar outputs"),
        (lambda weight: weight.detach(), "does not require grad"),
        (lambda weight: weight.long(), "does not require grad"),
    ],
)
def test_errors_are_torchs(calls: Calls, loss: Any, message: str) -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(RuntimeError, match=message):
        compute_gradients(loss(weight))


def test_going_twice_is_an_error_as_ever(calls: Calls) -> None:
    loss = torch.tensor(2.0, requires_grad=True).exp()
    compute_gradients(loss)
    with pytest.raises(RuntimeError, match="second time"):
        compute_gradients(loss)


def test_other_losses_compute_gradients_by_themselves(calls: Calls) -> None:
    class Own(torch.Tensor):
        pass

    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    weight = torch.tensor(2.0, requires_grad=True)
    compute_gradients((weight * 3).as_subclass(Own))
    compute_gradients((weight * 3).half())
    compute_gradients((weight * 3).reshape(1))
    with Mode():
        compute_gradients(weight * 3)
    assert "backward" in seen
    assert weight.grad == 12
    assert calls.count == 0


def test_another_torch_may_have_no_such_engine(monkeypatch: Any) -> None:
    def other(*args: Any) -> None:
        raise TypeError("run_backward() takes other arguments")

    def silent(*args: Any) -> None:
        return None

    for run in (other, silent, None):
        backward._engine.cache_clear()
        monkeypatch.setattr(torch.autograd.Variable, "_execution_engine", type("Engine", (), {"run_backward": run}))
        assert backward._engine() is None
        monkeypatch.undo()
        weight = torch.tensor(2.0, requires_grad=True)
        compute_gradients(weight * 3)
        assert weight.grad == 3
    backward._engine.cache_clear()
    monkeypatch.setattr(logging.getLogger("torch.autograd.graph"), "level", logging.DEBUG)
    assert backward._engine() is None
    backward._engine.cache_clear()
    monkeypatch.undo()
    assert backward._engine() is not None
