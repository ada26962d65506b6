"""Compiled steps: the numbers of eager ones to rounding, and eager ones where compiling fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from alcore_torchloop import DefaultTrainingLoop

from alcore import UsageError

GENERATOR = torch.Generator().manual_seed(1)
BATCHES = [(torch.randn(n, 3, generator=GENERATOR), torch.randn(n, 1, generator=GENERATOR)) for n in (6, 6, 6, 4)]


def net(dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(3)
    # no bias: its gradient would be rounding errors alone before a BatchNorm, and Adam makes steps of any gradient
    parts = [
        torch.nn.Linear(3, 8, bias=False),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(8, 1),
    ]
    return torch.nn.Sequential(*parts)


def step_of(model: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.mse_loss(model(batch[0]).float(), batch[1])


def trained(loop: DefaultTrainingLoop, model: Any, epochs: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    loop(model, torch.optim.AdamW(model.parameters(), lr=0.01), BATCHES, epochs, train_step_fn=step_of)
    return {name: value.clone() for name, value in model.state_dict().items()}


def compiles() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except RuntimeError:  # InvalidCxxCompiler
        return False


@pytest.mark.skipif(not compiles(), reason="there is no C++ compiler, which torch.compile needs on a CPU")
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "clip_norm": 0.1}], ids=str)
def test_numbers_are_those_of_eager_steps(options: Any, caplog: Any) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    loop = DefaultTrainingLoop(capture="compile", **options)
    model, twin = net(), net()
    for training in range(2):
        graphs = counters["stats"]["unique_graphs"]
        ours = trained(loop, model)
        assert bool(counters["stats"]["unique_graphs"] - graphs) == (training == 0), "compiled once, for the model"
        theirs = trained(DefaultTrainingLoop(**options), twin)
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)
    assert not [record for record in caplog.records if record.name == "alcore.torchloop"]


def without_compiler(function: Any) -> Any:
    def fail(model: Any, batch: Any) -> Any:
        model(batch[0])  # statistics of the batch, and a mask, are drawn before it fails
        raise RuntimeError("no working C++ compiler\nand a traceback of many lines")

    return fail


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        raise RuntimeError("no working C++ compiler")


def without_backward(function: Any) -> Any:
    return lambda model, batch: FailsBackward.apply(function(model, batch))


@pytest.mark.parametrize("failing", [without_compiler, without_backward])
@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"amp": "bf16"}], ids=str)
def test_steps_are_eager_if_compiling_fails(monkeypatch: Any, caplog: Any, failing: Any, options: Any) -> None:
    monkeypatch.setattr(torch, "compile", failing)
    loop = DefaultTrainingLoop(capture="compile", **options)
    with caplog.at_level(logging.WARNING, "alcore.torchloop"):
        ours = [trained(loop, net(0.5)) for _ in range(2)]
    theirs = trained(DefaultTrainingLoop(**options), net(0.5))
    for weights in ours:
        assert all(torch.equal(value, theirs[name]) for name, value in weights.items())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("runs eagerly, with the same results: no working C++ compiler")


def test_failing_at_a_later_shape_is_no_harm_either(monkeypatch: Any, caplog: Any) -> None:
    def fails_on_small(function: Any) -> Any:
        return lambda model, batch: function(model, batch) if len(batch[0]) == 6 else 1 / 0

    monkeypatch.setattr(torch, "compile", fails_on_small)
    ours, theirs = trained(DefaultTrainingLoop(capture="compile"), net()), trained(DefaultTrainingLoop(), net())
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert "division by zero" in caplog.text


def test_a_fault_of_the_step_itself_is_raised(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)

    def fail(model: Any, batch: Any) -> Any:
        raise ZeroDivisionError

    model = net()
    with pytest.raises(ZeroDivisionError):
        DefaultTrainingLoop(capture="compile")(
            model, torch.optim.SGD(model.parameters()), BATCHES, 1, train_step_fn=fail
        )
    assert not caplog.records


def test_steps_are_compiled_on_request_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "compile", None)
    trained(DefaultTrainingLoop(), net())
    trained(DefaultTrainingLoop(enable_static_capture=False, capture="compile"), net())


def test_an_unknown_capture() -> None:
    with pytest.raises(UsageError, match=r"capture is 'graphs'.*graph"):
        DefaultTrainingLoop(capture="graphs")  # type: ignore[arg-type]
