"""Each way of stepping gives the weights of a hand-written loop, and is taken up again where it was left."""

from __future__ import annotations

import copy
import queue
from typing import Any

import pytest
import torch
from alcore_torchloop import DefaultTrainingLoop
from alcore_torchloop.stepping import Stepper

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.errors import DivergedError, Interrupted
from alcore.strategies import BaseQuery

LOSS = torch.nn.functional.mse_loss
BATCHES = [
    (torch.randn(4, 3, generator=torch.Generator().manual_seed(i)), torch.full((4, 1), float(i))) for i in range(7)
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def net() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def step_of(model: Any, batch: Any) -> torch.Tensor:
    return LOSS(model(batch[0]), batch[1])


def trained(loop: DefaultTrainingLoop, optimizer: Any, epochs: int = 3, batches: Any = BATCHES, **more: Any) -> Any:
    model = net()
    loop(model, optimizer(model.parameters()), batches, epochs, train_step_fn=step_of, **more)
    return [parameter.detach().clone() for parameter in model.parameters()]


def by_hand(
    optimizer: Any, epochs: int = 3, window: int = 1, norm: float | None = None, value: float | None = None
) -> Any:
    model = net()
    optim = optimizer(model.parameters())
    for _ in range(epochs):
        for start in range(0, len(BATCHES), window):
            part = BATCHES[start : start + window]
            optim.zero_grad()
            for batch in part:
                (step_of(model, batch) / len(part)).backward()
            if value is not None:
                torch.nn.utils.clip_grad_value_(model.parameters(), value)
            if norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
            optim.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def sgd(**options: Any) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, **({"lr": 0.05} | options))


OPTIMIZERS = {
    "plain": sgd(),
    "momentum": sgd(momentum=0.9, nesterov=True),
    "decay": sgd(weight_decay=0.1),
    "maximize": sgd(maximize=True, lr=1e-3),
    "foreach": sgd(foreach=True),
    "tensor lr": sgd(lr=torch.tensor(0.05)),
    "adam": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "two groups": lambda parameters: torch.optim.SGD(
        [{"params": [one], "lr": 0.01 * i} for i, one in enumerate(parameters)]
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_are_those_of_a_hand_written_loop_to_the_bit(name: str) -> None:
    ours, theirs = trained(DefaultTrainingLoop(), OPTIMIZERS[name]), by_hand(OPTIMIZERS[name])
    assert all(map(torch.equal, ours, theirs))


def test_a_scheduler_is_told_of_direct_steps(recwarn: pytest.WarningsRecorder) -> None:
    model = net()
    optim = sgd()(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optim, 1, gamma=0.1)
    DefaultTrainingLoop()(model, optim, BATCHES, 2, train_step_fn=step_of, lr_scheduler=scheduler)
    assert optim.param_groups[0]["lr"] == pytest.approx(0.0005)
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"accumulate": 3}, {"accumulate": 7}, {"accumulate": 50}])
@pytest.mark.parametrize("optimizer", ["plain", "adam"])
def test_gradients_of_a_window_are_averaged(optimizer: str, options: dict[str, int]) -> None:
    ours = trained(DefaultTrainingLoop(**options), OPTIMIZERS[optimizer])
    theirs = by_hand(OPTIMIZERS[optimizer], window=options["accumulate"])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_clipped() -> None:
    for limits in ({"clip_norm": 0.1}, {"clip_value": 0.02}, {"clip_norm": 0.05, "clip_value": 0.02}):
        ours = trained(DefaultTrainingLoop(**limits), OPTIMIZERS["plain"])
        theirs = by_hand(OPTIMIZERS["plain"], norm=limits.get("clip_norm"), value=limits.get("clip_value"))
        assert all(map(torch.equal, ours, theirs))


def test_a_per_batch_scheduler_steps_with_the_optimizer() -> None:
    model = net()
    optim = sgd()(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optim, lambda count: 1.0 / (1 + count))
    DefaultTrainingLoop(schedule="batch", accumulate=3)(
        model, optim, BATCHES, 2, train_step_fn=step_of, lr_scheduler=scheduler
    )
    assert scheduler.last_epoch == 6  # 3 windows of 7 batches, twice


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_computes_in_it_and_keeps_weights_whole(amp: str) -> None:
    seen = set()

    def watching(model: Any, batch: Any) -> torch.Tensor:
        outputs = model(batch[0])
        seen.add(outputs.dtype)
        return LOSS(outputs.float(), batch[1])

    model = net()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    DefaultTrainingLoop(amp=amp)(model, sgd(lr=0.01)(model.parameters()), BATCHES, 3, train_step_fn=watching)
    assert seen == {torch.bfloat16 if amp == "bf16" else torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for ours, theirs, start in zip(model.parameters(), by_hand(sgd(lr=0.01)), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.1)
        assert not torch.equal(ours, start)


def test_a_step_that_fp16_skips_does_not_count_as_divergence() -> None:
    poison = {"at": 2, "seen": 0}

    def poisoned(model: Any, batch: Any) -> torch.Tensor:
        poison["seen"] += 1
        loss = step_of(model, batch)
        return loss * float("inf") if poison["seen"] == poison["at"] else loss

    losses: list[float] = []
    model = net()
    DefaultTrainingLoop(amp="fp16")(
        model, sgd(lr=0.01)(model.parameters()), BATCHES, 2, train_step_fn=poisoned,
        on_epoch_end=lambda epoch, metrics: losses.append(metrics["loss"]),
    )  # fmt: skip
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    with pytest.raises(DivergedError):
        trained(DefaultTrainingLoop(amp="fp16"), sgd(), batches=[(BATCHES[0][0] * float("inf"), BATCHES[0][1])])
    poison.update(at=2, seen=0)
    with pytest.raises(DivergedError):
        DefaultTrainingLoop()(net(), sgd()(net().parameters()), BATCHES, 1, train_step_fn=poisoned)


class Validation:
    """Validation losses that were written down beforehand, and what the model was at each."""

    def __init__(self, losses: list[float]) -> None:
        self.losses, self.weights = losses, []

    def __call__(self, model: Any, _batch: Any) -> float:
        self.weights.append(copy.deepcopy(model.state_dict()))
        return self.losses[len(self.weights) - 1]


@pytest.mark.parametrize(
    ("losses", "patience", "delta", "epochs", "best"),
    [
        ([3, 2, 1, 2, 2, 0], 2, 0.0, 5, 2),
        ([3, 2, 1, 2, 1, 2], 9, 0.0, 6, 2),
        ([3, 2.9, 2.8, 2.7, 0], 2, 1.0, 3, 0),
        ([5, 4, 3], 1, 0.0, 3, 2),
    ],
)
def test_patience_ends_and_goes_back_to_the_best(
    losses: list[float], patience: int, delta: float, epochs: int, best: int
) -> None:
    model, validation, ended = net(), Validation(losses), []
    DefaultTrainingLoop(patience=patience, min_delta=delta)(
        model, sgd()(model.parameters()), BATCHES, len(losses), [0], step_of, validation,
        on_epoch_end=lambda epoch, metrics: ended.append(copy.deepcopy(model.state_dict())),
    )  # fmt: skip
    assert len(validation.weights) == len(ended) == epochs
    for name, value in model.state_dict().items():
        assert torch.equal(value, validation.weights[best][name])
        assert torch.equal(value, ended[-1][name]), "a checkpoint of the last epoch must hold the best weights"


def test_patience_needs_a_validation() -> None:
    with pytest.raises(UsageError, match="there is no validation"):
        trained(DefaultTrainingLoop(patience=2), sgd())
    with pytest.raises(UsageError, match="returns none"):
        trained(DefaultTrainingLoop(patience=2), sgd(), validation_dataloader=[0], validate_step_fn=lambda *_: None)


@pytest.mark.parametrize(
    "wrong",
    [{"accumulate": 0}, {"patience": 0}, {"clip_norm": 0.0}, {"clip_value": -1.0}, {"amp": "fp8"}, {"min_delta": -1}],
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DefaultTrainingLoop(**wrong)


class Nothing(BaseQuery):
    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        query_queue.put(next(self.driver.candidates(1)).item())


SETTINGS: dict[str, dict[str, Any]] = {
    "windows": {"accumulate": 3},
    "fp16": {"amp": "fp16", "accumulate": 2, "clip_norm": 0.5},
    "patience": {"patience": 1, "min_delta": 0.01},
    "patience that never ends": {"patience": 50},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_interrupted_at_any_batch_and_resumed_equals_uninterrupted(name: str, tmp_path: Any) -> None:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))

    def run(run_id: str, end_at: int | None = None, resume: bool = False) -> tuple[Any, int]:
        seen = 0

        def step(model: Any, batch: Any) -> torch.Tensor:
            nonlocal seen
            seen += 1
            if seen == end_at:
                driver.interrupt()
            return LOSS(model(batch[0]), batch[1])

        pool, held = (
            TensorPool(inputs, inputs[:, :1] * 2, labeled=range(14)),
            TensorPool(inputs, inputs[:, :1], range(40)),
        )
        driver = Driver(
            c.DriverConfig(4, 2, run_id, root_log_dir=tmp_path, device="cpu", seed=0, model_checkpoint_frequency=2),
            net(),
            c.StrategiesConfig([Nothing()], queue.Queue),
            c.TrainingConfig(
                pool, 4, held, c.OptimizerConfig(torch.optim.Adam, {"lr": 0.05}),
                train_loop_fn=DefaultTrainingLoop(**SETTINGS[name]),
            ),
        )  # fmt: skip
        if resume:
            driver.restore()
        driver.run(train_step_fn=step)
        return [parameter.detach().clone() for parameter in driver.learner.parameters()], seen

    whole, steps = run("whole")
    for place in range(1, steps + 1, 2):
        with pytest.raises(Interrupted):
            run(f"cut-{place}", place)
        rest, seen = run(f"cut-{place}", resume=True)
        assert all(map(torch.equal, rest, whole)), place
        assert place + seen >= steps  # the epoch that was cut is trained again


def test_state_holds_the_scale_of_losses_alone() -> None:
    model = net()
    plain = Stepper(sgd()(model.parameters()), accumulate=3)
    plain.begin_batch()
    assert not plain.end_batch(step_of(model, BATCHES[0]))
    assert plain.state_dict() == {}
    scaled = Stepper(sgd()(model.parameters()), scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    assert scaled.state_dict()["scaler"]["scale"] == 8.0
