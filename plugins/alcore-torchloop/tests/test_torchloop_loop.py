"""The default loop against a loop written out by hand, bit for bit."""

import copy
import functools
import io
import queue
import sys
from collections import namedtuple

import alcore_torchloop.loop as loop_module
import pytest
import torch
from alcore_testing import toy_pool
from alcore_testing.drivers import build_driver
from alcore_torchloop import DefaultTrainingLoop
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau

from alcore import Driver, TensorPool, UsageError
from alcore.config import DriverConfig, OptimizerConfig, StrategiesConfig, TrainingConfig
from alcore.errors import DivergedError
from alcore.training import BatchLoader

CPU = torch.device("cpu")
OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
}


def problem(seed=0):
    """A learner, four batches, and two batches to validate on."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
        )
    batches = [(torch.randn(5, 3, generator=generator), torch.randn(5, 1, generator=generator)) for _ in range(6)]
    return model, batches[:4], batches[4:]


def loss_of(model, batch):
    inputs, targets = batch
    return torch.nn.functional.mse_loss(model(inputs), targets)


def by_hand(model, optimizer, batches, epochs, *, each_batch=None, each_epoch=None, validation=None):
    """What the loop should do, with nothing around it; returns the mean losses of each epoch."""
    told = []
    for _ in range(epochs):
        model.train()
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            if each_batch:
                each_batch.step()
            losses.append(loss.detach())
        figures = {"loss": torch.stack(losses).mean().item()}
        if validation is not None:
            model.eval()
            with torch.no_grad():
                figures["validation_loss"] = sum(loss_of(model, batch).item() for batch in validation) / len(validation)
            model.train()
        if isinstance(each_epoch, ReduceLROnPlateau):
            each_epoch.step(figures.get("validation_loss", figures["loss"]))
        elif each_epoch:
            each_epoch.step()
        told.append(figures)
    return told


def same(one, other):
    """Whether two models, or two optimizers, hold the same numbers to the last bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    if "param_groups" in ours:
        assert ours["param_groups"] == theirs["param_groups"]
        ours = {f"{i}.{name}": value for i, state in ours["state"].items() for name, value in state.items()}
        theirs = {f"{i}.{name}": value for i, state in theirs["state"].items() for name, value in state.items()}
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[name])), name
    return True


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_a_loop_by_hand(name):
    model, batches, _ = problem()
    twin = copy.deepcopy(model)
    optimizer, other = OPTIMIZERS[name](model.parameters()), OPTIMIZERS[name](twin.parameters())
    DefaultTrainingLoop()(model, optimizer, batches, 3, train_step_fn=loss_of)
    by_hand(twin, other, batches, 3)
    assert same(model, twin)
    assert same(optimizer, other)
    assert not torch.equal(model[0].weight, problem()[0][0].weight)  # it did train


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["epoch", "batch"])
def test_with_a_scheduler(name, schedule):
    model, batches, _ = problem()
    twin = copy.deepcopy(model)
    optimizer, other = OPTIMIZERS[name](model.parameters()), OPTIMIZERS[name](twin.parameters())
    scheduler, clock = ExponentialLR(optimizer, 0.8), ExponentialLR(other, 0.8)
    DefaultTrainingLoop(schedule=schedule)(model, optimizer, batches, 3, train_step_fn=loss_of, lr_scheduler=scheduler)
    by_hand(twin, other, batches, 3, **{f"each_{schedule}": clock})
    assert same(model, twin)
    assert scheduler.last_epoch == {"epoch": 3, "batch": 12}[schedule]
    assert scheduler.get_last_lr() == clock.get_last_lr()


def test_a_scheduler_that_counts_its_batches_gets_each_of_them():
    model, batches, _ = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
    DefaultTrainingLoop(schedule="batch")(model, optimizer, batches, 3, train_step_fn=loss_of, lr_scheduler=scheduler)
    with pytest.raises(ValueError, match="13"):  # one more than it was told of
        scheduler.step()


@pytest.mark.parametrize("validate", [False, True])
def test_a_scheduler_that_watches_the_loss(validate):
    model, batches, held_out = problem()
    twin = copy.deepcopy(model)
    optimizer, other = torch.optim.SGD(model.parameters(), lr=0.5), torch.optim.SGD(twin.parameters(), lr=0.5)
    scheduler, watch = (ReduceLROnPlateau(optim, patience=0, threshold=0.2, factor=0.5) for optim in (optimizer, other))
    DefaultTrainingLoop()(
        model, optimizer, batches, 8, held_out if validate else None, loss_of, loss_of, lr_scheduler=scheduler
    )
    told = by_hand(twin, other, batches, 8, each_epoch=watch, validation=held_out if validate else None)
    assert scheduler.best == watch.best
    assert scheduler.best in [figures["validation_loss" if validate else "loss"] for figures in told]
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"] < 0.5
    assert same(model, twin)


def test_the_optimizer_steps_once_a_batch():
    model, batches, held_out = problem()
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(1)
            return super().step(closure)

    optimizer = Counting(model.parameters(), lr=0.1)
    DefaultTrainingLoop()(model, optimizer, batches, 3, held_out, loss_of, loss_of)
    assert len(steps) == 12


def test_gradients_do_not_add_up():
    model, batches, _ = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loss_of(model, batches[0]).backward()  # left over from before
    DefaultTrainingLoop()(model, optimizer, batches[:1], 1, train_step_fn=loss_of)
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loss_of(twin, batches[0]).backward()
    assert torch.equal(model[0].weight.grad, twin[0].weight.grad)


def test_parameters_that_join_later_are_cleared_too():
    """Unfreezing layers one after another is done by adding parameter groups between epochs."""
    model, batches, _ = problem()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.0)
    DefaultTrainingLoop()(
        model, optimizer, batches[:1], 4, train_step_fn=loss_of,
        on_epoch_end=lambda epoch, metrics: epoch or (
            model.zero_grad(), optimizer.add_param_group({"params": model[0].parameters()})
        ),
    )  # fmt: skip
    once = copy.deepcopy(model)
    once.zero_grad()
    loss_of(once, batches[0]).backward()
    assert torch.equal(model[0].weight.grad, once[0].weight.grad)


def test_an_optimizer_clears_gradients_in_its_own_way():
    model, batches, _ = problem()
    calls = []

    class Own(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            calls.append(1)
            super().zero_grad(set_to_none)

    DefaultTrainingLoop()(model, Own(model.parameters(), lr=0.1), batches, 2, train_step_fn=loss_of)
    assert len(calls) == 8


def test_zero_epochs_change_nothing():
    model, batches, _ = problem()
    before = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DefaultTrainingLoop()(model, optimizer, batches, 0, train_step_fn=loss_of)
    assert same(model, before)


# -- validation --------------------------------------------------------------------------------------------------------


def test_validation_is_in_eval_mode_without_gradients():
    model, batches, held_out = problem()
    model[1].eval()
    seen = []

    def look(model, batch):
        seen.append((model.training, model[1].training, torch.is_grad_enabled(), model(batch[0]).requires_grad))
        return torch.tensor(float(len(seen)))

    told = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    statistics = []
    DefaultTrainingLoop()(
        model, optimizer, batches, 2, held_out, loss_of, look,
        on_epoch_end=lambda epoch, metrics: (
            told.append(dict(metrics)), statistics.append(model[1].num_batches_tracked.item())
        ),
    )  # fmt: skip
    assert seen == [(False, False, False, False)] * 4
    assert [figures["validation_loss"] for figures in told] == [1.5, 3.5]
    assert all(module.training for module in model.modules())
    assert statistics == [4, 8]  # validation batches left no trace in the running statistics


def test_modes_are_restored_when_validation_fails():
    model, batches, held_out = problem()

    def fail(model, batch):
        raise RuntimeError("no such figure")

    with pytest.raises(RuntimeError, match="no such figure"):
        DefaultTrainingLoop()(model, torch.optim.SGD(model.parameters(), lr=0.1), batches, 1, held_out, loss_of, fail)
    assert model.training
    assert torch.is_grad_enabled()


def test_a_validation_step_may_return_nothing():
    model, batches, held_out = problem()
    told = []
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.1), batches, 1, held_out, loss_of, lambda model, batch: None,
        on_epoch_end=lambda epoch, metrics: told.append(dict(metrics)),
    )  # fmt: skip
    assert [list(figures) for figures in told] == [["loss"]]


# -- what it calls -----------------------------------------------------------------------------------------------------


class Own(torch.nn.Module):
    """A learner with steps of its own."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.calls = []

    def forward(self, inputs):
        return self.weight * inputs

    def training_step(self, batch):
        self.calls.append("training")
        return (self(batch) ** 2).mean()

    def validation_step(self, batch):
        self.calls.append("validation")
        return (self(batch) ** 2).mean()


def test_the_models_own_steps_are_used_where_none_is_given():
    model, told = Own(), []
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.25), [torch.ones(1)], 2, [torch.ones(1)],
        on_epoch_end=lambda epoch, metrics: told.append((epoch, dict(metrics))),
    )  # fmt: skip
    assert model.calls == ["training", "validation"] * 2
    # w = 2, then w - 0.25 * 2w = 1, then 0.5; the loss is w^2
    assert told == [(0, {"loss": 4.0, "validation_loss": 1.0}), (1, {"loss": 1.0, "validation_loss": 0.25})]


def test_a_given_step_goes_before_the_models_own():
    model = Own()
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.25), [torch.ones(1)], 1, [torch.ones(1)],
        lambda model, batch: model(batch).sum(), lambda model, batch: None,
    )  # fmt: skip
    assert model.calls == []
    assert model.weight.item() == 1.75


def test_on_epoch_end_hears_epochs_and_mean_losses():
    model, batches, held_out = problem()
    twin = copy.deepcopy(model)
    told = []
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.1), batches, 3, held_out, loss_of, loss_of,
        on_epoch_end=lambda epoch, metrics: told.append((epoch, dict(metrics))),
    )  # fmt: skip
    expected = by_hand(twin, torch.optim.SGD(twin.parameters(), lr=0.1), batches, 3, validation=held_out)
    assert [epoch for epoch, _ in told] == [0, 1, 2]
    for (_, metrics), figures in zip(told, expected, strict=True):
        assert metrics == pytest.approx(figures, rel=1e-6)


# -- where batches are put ---------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["inputs", "targets"])


@pytest.mark.parametrize("shape", [tuple, list, Pair._make, lambda pair: dict(zip("ab", pair, strict=True))])
def test_batches_of_another_loader_are_cast_but_integers_stay(shape):
    model = torch.nn.Linear(2, 3).double()
    seen = []

    def step(model, batch):
        inputs, targets = batch.values() if isinstance(batch, dict) else batch
        seen.append((type(batch), inputs.dtype, targets.dtype))
        return torch.nn.functional.cross_entropy(model(inputs), targets)

    batch = shape((torch.randn(4, 2), torch.tensor([0, 1, 2, 0])))
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.1), [batch], 1, [batch], step, step, device=CPU,
        dtype=torch.float64,
    )  # fmt: skip
    assert seen == [(type(batch), torch.float64, torch.int64)] * 2


def test_a_device_or_a_dtype_alone_is_enough():
    seen = []

    def step(model, batch):
        seen.append((batch.device.type, batch.dtype))
        return model.weight.sum()

    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DefaultTrainingLoop()(model, optimizer, [torch.ones(2)], 1, train_step_fn=step, dtype=torch.float64)
    DefaultTrainingLoop()(
        torch.nn.Linear(2, 3), optimizer, [torch.ones(2)], 1, train_step_fn=lambda _, batch: step(model, batch),
        device=torch.device("cpu"),
    )  # fmt: skip
    DefaultTrainingLoop()(model, optimizer, [torch.ones(2)], 1, train_step_fn=step)
    assert seen == [("cpu", torch.float64), ("cpu", torch.float32), ("cpu", torch.float32)]


def test_a_device_alone_moves_the_batches():
    model = torch.nn.Linear(2, 3)
    seen = []
    DefaultTrainingLoop()(
        model, torch.optim.SGD(model.parameters(), lr=0.1), [torch.ones(2)], 1, device=torch.device("meta"),
        train_step_fn=lambda model, batch: seen.append(batch.device.type) or model.weight.sum(),
    )  # fmt: skip
    assert seen == ["meta"]


def test_batches_of_a_drivers_loader_are_left_as_they_are():
    pool = TensorPool(torch.randn(8, 2), torch.arange(8) % 2, labeled=range(8))
    loader = BatchLoader(pool, 4, device=CPU, dtype=torch.float64)
    model = torch.nn.Linear(2, 2).double()
    seen = []

    def step(model, batch):
        seen.append(batch[0].dtype)
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # the dtype would tell if the loop cast the batches once more
    DefaultTrainingLoop()(model, optimizer, loader, 1, train_step_fn=step, device=CPU, dtype=torch.float64)
    assert seen == [torch.float64] * 2
    assert loop_module._on_device(loader, CPU, torch.float32) is loader


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_epoch(bad):
    model, batches, _ = problem()
    told = []

    def step(model, batch):
        loss = loss_of(model, batch)
        return loss + bad if len(told) == 2 else loss

    with pytest.raises(DivergedError, match=rf"became {bad} in epoch 2.*smaller learning rate"):
        DefaultTrainingLoop()(
            model, torch.optim.SGD(model.parameters(), lr=0.1), batches, 5, train_step_fn=step,
            on_epoch_end=lambda epoch, metrics: told.append(epoch),
        )  # fmt: skip
    assert told == [0, 1]


def test_loader_without_batches_is_refused():
    model, _, _ = problem()
    with pytest.raises(UsageError, match="gave no batch; is anything labeled"):
        DefaultTrainingLoop()(model, torch.optim.SGD(model.parameters(), lr=0.1), [], 1, train_step_fn=loss_of)


def test_learner_without_parameters_is_refused():
    with pytest.raises(UsageError, match=r"Identity has no trainable parameters.*skip_training"):
        DefaultTrainingLoop()(torch.nn.Identity(), None, [torch.ones(1)], 1, train_step_fn=loss_of)


class Fitted(torch.nn.Module):
    """A learner that is fitted to all labels at once."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def fit_batches(self, batches, generator):
        self.mean.copy_(torch.cat([targets for _, targets in batches]).double().mean())

    def forward(self, inputs):
        return self.mean.expand(len(inputs), 2)


def test_learner_that_fits_itself_is_fitted_in_place_of_epochs():
    model, batches = Fitted(), [(torch.zeros(2, 3), torch.tensor([1, 4])), (torch.zeros(1, 3), torch.tensor([4]))]
    DefaultTrainingLoop()(model, None, batches, 5)
    assert float(model.mean) == 3


@pytest.mark.parametrize(
    "option",
    [{"patience": 2}, {"amp": "bf16"}, {"accumulate": 2}, {"clip_norm": 1.0}, {"train_step_fn": loss_of}],
    ids=lambda option: next(iter(option)),
)
def test_option_of_epochs_is_refused_with_a_learner_that_fits_itself(tmp_path, option):
    driver = build_driver(tmp_path, learner=Fitted(), loop=DefaultTrainingLoop(**option))
    (name,) = option
    with pytest.raises(UsageError, match=f"{name} is for a training in epochs, and Fitted is fitted to all labels"):
        driver.run()
    assert not driver.log_dir.exists()


@pytest.mark.parametrize("given", [(loss_of,), (True, loss_of), (None,)])
def test_step_functions_in_the_place_of_flags_are_refused_with_their_names(given):
    with pytest.raises(UsageError, match=r"is .*; it must be True or False\. The step functions.*train_step_fn=\.\.\."):
        DefaultTrainingLoop(*given)


def test_an_unknown_schedule():
    with pytest.raises(UsageError, match=r"schedule is 'step': there are: batch, epoch"):
        DefaultTrainingLoop(schedule="step")


# -- progress ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "bars", "shown"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_progress_is_for_terminals(monkeypatch, stream, bars, shown):
    model, batches, _ = problem()
    now = functools.partial(loop_module.tqdm, mininterval=0)
    monkeypatch.setattr(loop_module, "tqdm", lambda *args, **kwargs: now(*args, **kwargs | {"delay": 0}))
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DefaultTrainingLoop(use_progress_bars=bars)(model, optimizer, batches, 2, train_step_fn=loss_of)
    assert ("epoch 2/2" in sys.stderr.getvalue()) == shown
    assert bool(sys.stderr.getvalue()) == shown
    assert sys.stdout.getvalue() == ""


def test_a_quick_training_shows_nothing_even_on_a_terminal(monkeypatch):
    model, batches, _ = problem()
    monkeypatch.setattr(sys, "stderr", Terminal())
    DefaultTrainingLoop()(model, torch.optim.SGD(model.parameters(), lr=0.1), batches, 2, train_step_fn=loss_of)
    assert "epoch" not in sys.stderr.getvalue()


# -- the plugin --------------------------------------------------------------------------------------------------------


def test_plugin_offers_its_parts_by_name():
    from alcore import plugins

    made = plugins.installed().make("loop", "default", schedule="batch")
    assert type(made) is DefaultTrainingLoop
    assert made.schedule == "batch"


# -- when a run validates ----------------------------------------------------------------------------------------------


class Counts(torch.nn.Linear):
    """Notes how many held-out items it is given in eval mode."""

    def __init__(self):
        super().__init__(4, 3)
        self.validated = 0

    def forward(self, x):
        if not self.training:
            self.validated += len(x)
        return super().forward(x)


class CountsByItself(Counts):
    def validation_step(self, batch):
        self.validated += len(batch[0])


@pytest.mark.parametrize(
    ("learner", "loop", "scheduler", "step", "times"),
    [
        (Counts, {}, None, None, 1),
        (Counts, {"patience": 9}, None, None, 5),
        (Counts, {}, torch.optim.lr_scheduler.ReduceLROnPlateau, None, 5),
        (Counts, {}, functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1), None, 1),
        (Counts, {}, None, lambda model, batch: model(batch[0]).sum(), 5),
        (Counts, {"validate_step_fn": lambda model, batch: model(batch[0]).sum()}, None, None, 5),
        (CountsByItself, {}, None, None, 5),
    ],
)
def test_run_validates_after_each_epoch_where_something_uses_it(tmp_path, learner, loop, scheduler, step, times):
    model, held_out = learner(), toy_pool("classes")
    driver = Driver(
        DriverConfig(batch_size=8, max_active_learning_steps=1, skip_labeling=True, root_log_dir=tmp_path),
        model,
        StrategiesConfig([], queue.Queue),
        TrainingConfig(
            toy_pool("classes"), max_training_epochs=5, val_datapool=held_out,
            optimizer_config=OptimizerConfig(torch.optim.SGD, {"lr": 0.1}, scheduler),
            train_loop_fn=DefaultTrainingLoop(**loop),
        ),
    )  # fmt: skip
    driver.run(validate_step_fn=step)
    assert model.validated == 2 + times * len(held_out)  # a run tries two candidates as it begins
