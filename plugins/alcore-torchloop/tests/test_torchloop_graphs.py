"""Captured steps on graphs that stand in for CUDA's: the same numbers as eagerly, and one optimizer step a batch."""

from __future__ import annotations

import copy
import logging
import queue
from typing import Any

import pytest
import torch
from alcore_torchloop import DefaultTrainingLoop, StaticCaptureEvaluateNoGrad, StaticCaptureTraining, graphs
from alcore_torchloop.graph_cache import MOST_GRAPHS, Dependencies
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.errors import DivergedError, Interrupted

WARMUP = 3
EPOCHS = 5


def net(dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(dropout),
        torch.nn.SiLU(),
        torch.nn.Linear(8, 1),
    )


def batches(*sizes: int) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator), torch.randn(n, 1, generator=generator)) for n in sizes]


EVEN, RAGGED = batches(6, 6, 6, 6), batches(6, 6, 6, 4)


def step_of(model: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.mse_loss(model(batch[0]).float(), batch[1])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def trained(capture: bool, optimizer: Any, data: Any = RAGGED, step: Any = step_of, **options: Any) -> Any:
    """Train a new model; return it with its optimizer and the losses of the epochs."""
    schedule = options.pop("scheduler", None)
    model = options.pop("model", None) or net()
    optim = optimizer(model.parameters())
    losses: list[float] = []
    torch.manual_seed(5)
    DefaultTrainingLoop(enable_static_capture=capture, **options)(
        model, optim, data, EPOCHS, train_step_fn=step, lr_scheduler=schedule and schedule(optim),
        on_epoch_end=lambda epoch, metrics: losses.append(metrics["loss"]),
    )  # fmt: skip
    return model, optim, losses


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours[2] == theirs[2]
    for one, other in zip(ours[0].state_dict().items(), theirs[0].state_dict().items(), strict=True):
        assert torch.equal(one[1], other[1]), one[0]
    for one, other in zip(ours[1].state.values(), theirs[1].state.values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


# -- the loop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [EVEN, RAGGED], ids=["even", "ragged"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1},
        {"clip_value": 0.02},
        {"accumulate": 2},
        {"accumulate": 3, "clip_norm": 0.1},
        {"amp": "bf16"},
        {"amp": "fp16"},
        {"amp": "fp16", "accumulate": 2, "clip_norm": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_numbers_are_those_of_eager_steps(tapes: Any, optimizer: Any, options: Any, data: Any) -> None:
    assert_same(trained(True, optimizer, data, **options), trained(False, optimizer, data, **options))
    assert tapes.replays, "nothing was captured"
    assert tapes.warmups == WARMUP * len(tapes.tapes)
    assert sum(tapes.replays) == EPOCHS * len(data) - tapes.warmups


def test_there_is_a_graph_for_each_shape(tapes: Any) -> None:
    trained(True, adam, RAGGED)
    assert tapes.replays == [3 * EPOCHS - WARMUP, EPOCHS - WARMUP]


def test_shapes_without_end_run_eagerly(tapes: Any) -> None:
    data = batches(*range(2, 2 + 2 * MOST_GRAPHS))
    assert_same(trained(True, adam, data), trained(False, adam, data))
    assert len(tapes.tapes) == MOST_GRAPHS


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_the_optimizer_is_inside_where_it_does_nothing_on_the_host(tapes: Any, optimizer: Any) -> None:
    """One batch is one step of it, inside or outside: Adam's counter is what it says."""
    model, optim, _ = trained(True, optimizer, EVEN)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    written = {
        tensor.untyped_storage().data_ptr()
        for operation, args, *_ in tapes.tapes[0].operations
        if operation._schema.is_mutable
        for tensor in (args[0] if isinstance(args[0], list) else args[:1])
    }
    assert bool(weights & written) == (optimizer is sgd)
    if optimizer is adam:
        assert {state["step"].item() for state in optim.state.values()} == {EPOCHS * len(EVEN)}


def test_capturable_optimizers_are_inside() -> None:
    from alcore_torchloop.stepping import Stepper

    def inside(optimizer: Any, **options: Any) -> bool:
        return Stepper(optimizer, **options).can_be_recorded()

    weights = list(net().parameters())
    assert inside(torch.optim.AdamW(weights, capturable=True))
    assert not inside(torch.optim.AdamW(weights))
    assert not inside(torch.optim.AdamW(weights, capturable=True), accumulate=2)
    assert not inside(torch.optim.AdamW(weights, capturable=True), scaler=torch.amp.GradScaler("cpu"))
    assert inside(sgd(weights))
    hooked = sgd(weights)
    hooked.register_step_post_hook(lambda *_: None)
    assert not inside(hooked)
    assert not inside(type("Own", (torch.optim.SGD,), {})(weights))


@pytest.mark.parametrize("schedule", ["batch", "epoch"])
def test_a_schedule_reaches_an_optimizer_inside_a_graph(tapes: Any, schedule: str) -> None:
    for make in (
        lambda optim: ExponentialLR(optim, 0.8),
        lambda optim: OneCycleLR(optim, 0.1, total_steps=EPOCHS * len(RAGGED)),  # it changes the momentum too
    ):
        assert_same(
            trained(True, sgd, schedule=schedule, scheduler=make),
            trained(False, sgd, schedule=schedule, scheduler=make),
        )
    assert tapes.replays


def test_weights_that_are_not_used_stay_without_gradient(tapes: Any) -> None:
    """An optimizer leaves them alone; a gradient of zeros would let weight decay at them."""

    def model() -> Any:
        whole = net()
        whole.spare = torch.nn.Linear(2, 2)
        whole.forward = lambda inputs: torch.nn.Sequential(*list(whole)[:5])(inputs)
        return whole

    ours, theirs = (trained(capture, adam, model=model()) for capture in (True, False))
    assert_same(ours, theirs)
    assert ours[0].spare.weight.grad is None
    assert tapes.replays


def test_layers_that_are_frozen_between_epochs_stay_as_they_are(tapes: Any) -> None:
    results = []
    for capture in (True, False):
        model = net()
        DefaultTrainingLoop(enable_static_capture=capture)(
            model, adam(model.parameters()), EVEN, EPOCHS, train_step_fn=step_of,
            on_epoch_end=lambda epoch, metrics, model=model: model[0].requires_grad_(epoch != 1),
        )  # fmt: skip
        results.append(model.state_dict())
    assert all(torch.equal(*pair) for pair in zip(*(result.values() for result in results), strict=True))
    assert len(tapes.tapes) == 3


def trained_with_a_change(capture: bool, change: str) -> list[torch.Tensor]:
    model = net()

    def at_epoch_1(epoch: int, _metrics: Any) -> None:
        if epoch != 1:
            return
        if change == "data":
            model[0].weight.data = torch.zeros(8, 3)
        elif change == "parameter":
            model[0].register_parameter("bias", torch.nn.Parameter(torch.ones(8)))
        elif change == "buffer":
            model[1].running_mean = torch.ones(8)
        else:
            model[1].eval()

    DefaultTrainingLoop(enable_static_capture=capture)(
        model, sgd(model.parameters()), EVEN, EPOCHS, train_step_fn=step_of, on_epoch_end=at_epoch_1
    )
    return list(model.state_dict().values())


@pytest.mark.parametrize("change", ["data", "parameter", "buffer", "mode"])
def test_a_model_that_changes_is_captured_anew(tapes: Any, change: str) -> None:
    assert all(map(torch.equal, trained_with_a_change(True, change), trained_with_a_change(False, change)))
    assert len(tapes.tapes) == 2


@pytest.mark.parametrize("change", ["data", "parameter", "buffer", "mode"])
def test_the_stand_in_shows_a_stale_graph(tapes: Any, monkeypatch: Any, change: str) -> None:
    """The fault put in: with graphs that are never dropped, the numbers differ."""
    monkeypatch.setattr(Dependencies, "same", lambda self, other: other is not None)
    assert not all(map(torch.equal, trained_with_a_change(True, change), trained_with_a_change(False, change)))
    assert len(tapes.tapes) == 1


def test_each_training_has_its_own_graphs(tapes: Any) -> None:
    """A new optimizer that lies where an old one did can't get the old one's graph."""
    model, twin = net(), net()
    captured, eager = DefaultTrainingLoop(), DefaultTrainingLoop(enable_static_capture=False)
    for _ in range(3):
        for loop, one in ((captured, model), (eager, twin)):
            loop(one, sgd(one.parameters()), EVEN, 2, train_step_fn=step_of)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert len(tapes.tapes) == 3


def test_masks_of_dropout_are_drawn_anew(tapes: Any) -> None:
    seen = []

    class Spy(torch.nn.Dropout):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(super().forward(inputs))
            return seen[-1]

    model = net()
    model[2] = Spy(0.5)
    torch.manual_seed(0)
    masks = []
    step = StaticCaptureTraining(model, sgd(model.parameters()), cuda_graph_warmup=1)(step_of)
    for _ in range(7):
        step(model, EVEN[0])
        masks.append(seen[-1] == 0)
    assert tapes.replays == [5]
    assert len(seen) == 3, "code of Python runs when it is recorded, and no more"
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 7


def test_a_loss_is_not_overwritten_by_the_next(tapes: Any) -> None:
    model = net()
    step = StaticCaptureTraining(model, sgd(model.parameters()), cuda_graph_warmup=1)(step_of)
    losses = [step(model, batch) for batch in EVEN]
    assert len({loss.item() for loss in losses}) == len(EVEN)


def test_divergence_is_told(tapes: Any) -> None:
    with pytest.raises(DivergedError):
        trained(True, sgd, [*EVEN, (EVEN[0][0] * float("inf"), EVEN[0][1])])


def test_a_run_that_is_interrupted_inside_an_epoch(tapes: Any, tmp_path: Any) -> None:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))

    def run(run_id: str, capture: bool = True, end_at: int | None = None, resume: bool = False) -> Any:
        seen = []

        def step(model: Any, batch: Any) -> torch.Tensor:
            seen.append(1)
            if len(seen) == end_at:
                driver.interrupt()
            return step_of(model, batch)

        pool = TensorPool(inputs, inputs[:, :1] * 2, labeled=range(14))
        driver = Driver(
            c.DriverConfig(4, 1, run_id, root_log_dir=tmp_path, device="cpu", seed=0, drop_last=False),
            net(),
            c.StrategiesConfig([], queue.Queue),
            c.TrainingConfig(
                pool, 4, optimizer_config=c.OptimizerConfig(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
                train_loop_fn=DefaultTrainingLoop(capture, accumulate=2),
            ),
        )  # fmt: skip
        if resume:
            driver.restore()
        driver.run(train_step_fn=step)
        return driver.learner.state_dict()

    expected = run("eager", capture=False)
    whole = run("whole")
    assert tapes.replays
    with pytest.raises(Interrupted):
        run("cut", end_at=4)  # the last call that runs as it is, and a window is open
    rest = run("cut", resume=True)
    for name, value in expected.items():
        assert torch.equal(value, whole[name]), name
        assert torch.equal(value, rest[name]), name


# -- what can't be captured --------------------------------------------------------------------------------------------


def reading(model: Any, batch: Any) -> torch.Tensor:
    loss = step_of(model, batch)
    return loss * (1.0 if loss.item() > 0 else 2.0)


def replacing(model: Any, batch: Any, calls: Any = range(99)) -> torch.Tensor:
    model.calls = getattr(model, "calls", -1) + 1
    if model.calls in calls:
        model[1].running_mean = model[1].running_mean * 0.9
    return step_of(model, batch)


def replacing_once(model: Any, batch: Any) -> torch.Tensor:
    return replacing(model, batch, [WARMUP])


class Box:
    """A batch of an unknown type."""

    def __init__(self, pair: Any) -> None:
        self.pair = pair


@pytest.mark.parametrize(
    ("step", "data", "why"),
    [
        (reading, EVEN, "not permitted"),
        (replacing, EVEN, "the model changes from step to step"),
        (replacing_once, EVEN, "BatchNorm1d replaces one of its buffers"),
        (lambda model, box: step_of(model, box.pair), [Box(pair) for pair in EVEN], "a Box"),
    ],
    ids=["reads", "replaces", "replaces once", "unknown"],
)
@pytest.mark.parametrize("options", [{}, {"accumulate": 3}], ids=str)
def test_steps_that_can_not_be_captured_run_eagerly(
    tapes: Any, caplog: Any, step: Any, data: Any, why: str, options: Any
) -> None:
    with caplog.at_level(logging.WARNING, "alcore.torchloop"):
        ours = trained(True, adam, data, step, **options)
    # the call that replaces once is that of the recording, which leaves no trace
    assert_same(ours, trained(False, adam, data, step_of if step is replacing_once else step, **options))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "runs eagerly" in line
    assert why in line
    assert "\n" not in line
    assert not tapes.tapes


def test_a_fault_of_the_step_itself_is_raised(tapes: Any) -> None:
    calls = []

    def failing(model: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > WARMUP:
            raise ZeroDivisionError
        return step_of(model, batch)

    with pytest.raises(ZeroDivisionError):
        trained(True, adam, EVEN, failing)


# -- the decorators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_decorated_step(tapes: Any, optimizer: Any, clip: float | None) -> None:
    model, twin = net(), net()
    optim, other = optimizer(model.parameters()), optimizer(twin.parameters())
    step = StaticCaptureTraining(model, optim, cuda_graph_warmup=2, gradient_clip_norm=clip)(step_of)
    plain = StaticCaptureTraining(twin, other, use_graphs=False, gradient_clip_norm=clip)(step_of)
    for number, batch in enumerate([*EVEN, *RAGGED, *EVEN]):
        if number == 8:  # as after a restore: everything in new memory
            for each in (optim, other):
                each.load_state_dict(copy.deepcopy(each.state_dict()))
        if number == 10:
            optim.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.5
        assert torch.equal(step(model, batch), plain(twin, batch))
    assert_same((model, optim, []), (twin, other, []))
    assert tapes.replays


def test_other_arguments_get_other_graphs(tapes: Any) -> None:
    model, other = net(), copy.deepcopy(net())

    def loss(model: Any, batch: Any, *, weight: float) -> torch.Tensor:
        return weight * step_of(model, batch)

    step = StaticCaptureTraining(model, sgd([*model.parameters(), *other.parameters()]), cuda_graph_warmup=1)(loss)
    for _ in range(5):  # the optimizer's state for each model is new in the first round
        step(model, EVEN[0], weight=1.0)
        step(model, EVEN[0], weight=2.0)
        step(other, EVEN[0], weight=2.0)
    assert tapes.replays == [3, 3, 3]


def test_evaluation_is_captured(tapes: Any) -> None:
    model = net(dropout=0.5)
    look = StaticCaptureEvaluateNoGrad(model, cuda_graph_warmup=2)(lambda model, inputs: {"out": model(inputs), "n": 3})
    seen = [look(model, batch[0]) for batch in EVEN]
    assert tapes.replays == [2]
    model.eval()
    for found, batch in zip(seen, EVEN, strict=True):
        assert torch.equal(found["out"], model(batch[0]))
        assert found["n"] == 3
        assert not found["out"].requires_grad


def test_evaluation_that_returns_something_else_runs_eagerly(tapes: Any, caplog: Any) -> None:
    look = StaticCaptureEvaluateNoGrad(net(), cuda_graph_warmup=1)(lambda model, inputs: Box(model(inputs)))
    model = net()
    assert [type(look(model, EVEN[0][0])) for _ in range(3)] == [Box] * 3
    assert "a Box" in caplog.text


# -- CUDA, as far as can be told without a device ----------------------------------------------------------------------


class Cuda:
    """Stands in for ``torch.cuda``, and writes down what is asked of it."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.default_generators = [self.Part(self, "generator 0"), self.Part(self, "generator 1")]

    class Part:
        def __init__(self, cuda: Any, name: str) -> None:
            self.cuda, self.name = cuda, name

        def __enter__(self) -> Any:
            self.cuda.said.append(f"enter {self.name}")
            return self

        def __exit__(self, *error: Any) -> None:
            self.cuda.said.append(f"exit {self.name}")

        def wait_stream(self, other: Any) -> None:
            self.cuda.said.append(f"{self.name} waits for {other.name}")

        def clone_state(self) -> str:
            return f"{self.name} before"

        def graphsafe_set_state(self, state: str) -> None:
            self.cuda.said.append(f"{self.name} is as {state}")

    def __getattr__(self, name: str) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            if name in ("stream", "graph"):
                assert kwargs.get("stream", args[0]).name == "Stream"
            return 1 if name == "current_device" else self.Part(self, name)

        return make


@pytest.mark.parametrize(("device", "index"), [("cuda:0", 0), ("cuda", 1)])
def test_cuda_graphs_call_torch_as_expected(monkeypatch: Any, device: str, index: int) -> None:
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    source = graphs.graphs_for(device)
    assert source is not None
    with source.aside():
        cuda.said.append("work")
    assert cuda.said == [
        "Stream waits for current_stream", "enter stream", "work", "exit stream", "current_stream waits for Stream"
    ]  # fmt: skip
    cuda.said.clear()
    with source.record() as graph:
        cuda.said.append("work")
    assert graph.name == "CUDAGraph"  # type: ignore[attr-defined]
    assert cuda.said == ["enter device", "enter graph", "work", "exit graph", "exit device"]
    cuda.said.clear()
    with pytest.raises(ZeroDivisionError), source.record():
        raise ZeroDivisionError
    assert cuda.said[-1] == f"generator {index} is as generator {index} before"


def test_there_are_no_graphs_without_cuda() -> None:
    assert graphs.graphs_for(torch.device("cpu")) is None
    assert graphs.graphs_for(None) is None
    assert graphs.device_of(net()) == torch.device("cpu")
    assert graphs.device_of(lambda: None) is None
