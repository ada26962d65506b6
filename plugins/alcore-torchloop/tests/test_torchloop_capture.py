"""Steps made by the static-capture decorators, on a CPU."""

import contextlib
import copy
import inspect
import logging

import pytest
import torch
from alcore_torchloop import StaticCaptureEvaluateNoGrad, StaticCaptureTraining

from alcore import UsageError

LOGGER = logging.getLogger("test.capture")


def problem():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        batches = [(torch.randn(5, 3), 9 * torch.randn(5, 1)) for _ in range(4)]
    return model, batches


def loss_of(model, batch):
    """The mean squared error."""
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1])


def assert_same(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("use_graphs", [False, True])
def test_a_training_step_is_the_whole_step(clip, use_graphs):
    model, batches = problem()
    twin = copy.deepcopy(model)
    optimizer, other = (torch.optim.Adam(module.parameters(), lr=0.05) for module in (model, twin))
    step = StaticCaptureTraining(
        model=model, optim=optimizer, use_graphs=use_graphs, cuda_graph_warmup=2, gradient_clip_norm=clip
    )(loss_of)
    for batch in batches * 3:
        loss = step(model, batch)
        other.zero_grad()
        expected = loss_of(twin, batch)
        expected.backward()
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
            assert norm > 0
        other.step()
        assert torch.equal(loss, expected)
        assert not loss.requires_grad
    assert_same(model, twin)


def test_clipping_makes_a_difference():
    results = []
    for clip in (None, 1e-3):
        model, batches = problem()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        StaticCaptureTraining(model, optimizer, gradient_clip_norm=clip)(loss_of)(model, batches[0])
        results.append(model[0].weight.detach().clone())
    assert not torch.equal(*results)


def test_the_optimizer_steps_once_a_call():
    model, batches = problem()
    optimizer = torch.optim.Adam(model.parameters())
    step = StaticCaptureTraining(model, optimizer)(loss_of)
    for batch in batches:
        step(model, batch)
    assert optimizer.state[model[0].weight]["step"].item() == len(batches)


def test_gradients_do_not_add_up():
    model, batches = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = StaticCaptureTraining(model, optimizer)(loss_of)
    step(model, batches[0])
    once = model[0].weight.grad.clone()
    step(model, batches[0])
    torch.testing.assert_close(model[0].weight.grad, once)


def test_a_step_keeps_name_arguments_and_words():
    model, batches = problem()

    def weighted(model, batch, *, weight):
        """Weighted."""
        return weight * loss_of(model, batch)

    step = StaticCaptureTraining(model, torch.optim.SGD(model.parameters(), lr=0.1))(weighted)
    assert (step.__name__, step.__doc__) == ("weighted", "Weighted.")
    expected = 3 * loss_of(copy.deepcopy(model), batches[0])
    assert torch.equal(step(model, batches[0], weight=3), expected.detach())


def test_evaluation_is_in_eval_mode_without_gradients():
    model, batches = problem()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []

    @StaticCaptureEvaluateNoGrad(model=model, use_graphs=False)
    def look(model, inputs):
        """Look."""
        seen.append((torch.is_grad_enabled(), [module.training for module in model]))
        return model(inputs), "anything"

    output, word = look(model, batches[0][0])
    assert seen == [(False, [False, False, False])]
    assert word == "anything"
    assert look.__doc__ == "Look."
    assert not output.requires_grad
    assert torch.is_grad_enabled()
    assert [module.training for module in model] == [True, False, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modes_are_restored_when_evaluation_fails():
    model, _ = problem()

    @StaticCaptureEvaluateNoGrad(model)
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert torch.is_grad_enabled()


def test_a_captured_step_cannot_be_stepped_again_by_a_loop():
    """The fault of the code this learns from: an optimizer that steps twice a batch. The loss is detached instead."""
    from alcore_torchloop import DefaultTrainingLoop

    model, batches = problem()
    optimizer = torch.optim.Adam(model.parameters())
    step = StaticCaptureTraining(model, optimizer)(loss_of)
    with pytest.raises(RuntimeError, match="does not require grad"):
        DefaultTrainingLoop()(model, optimizer, batches, 1, train_step_fn=step)
    assert optimizer.state[model[0].weight]["step"].item() == 1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_mixed_precision_computes_in_its_type_and_scales_losses_in_float16(kind):
    model, batches = problem()
    seen = []

    def step_of(model, batch):
        seen.append(model[0](batch[0]).dtype)
        return loss_of(model, batch)

    def trained(**settings):
        copied = copy.deepcopy(model)
        step = StaticCaptureTraining(model=copied, optim=torch.optim.SGD(copied.parameters(), lr=0.01), **settings)(
            step_of
        )
        return copied, [float(step(copied, batch)) for batch in batches * 2]

    lower, losses = trained(use_amp=True, amp_type=kind)
    assert set(seen) == {kind}
    seen.clear()
    plain, exact = trained(amp_type=kind)
    assert set(seen) == {torch.float32}
    assert losses != exact, "it computes otherwise"
    assert losses[0] == pytest.approx(exact[0], rel=0.02)
    for name, value in lower.state_dict().items():
        assert value.dtype == plain.state_dict()[name].dtype
    evaluated = StaticCaptureEvaluateNoGrad(model=model, use_amp=True, amp_type=kind)(lambda model, x: model[0](x))
    assert evaluated(model, batches[0][0]).dtype == kind


def test_gradients_of_scaled_losses_are_clipped_as_they_are():
    model, batches = problem()
    twin = copy.deepcopy(model)
    settings = {"gradient_clip_norm": 0.1, "amp_type": torch.float16}
    steps = [
        StaticCaptureTraining(model=one, optim=torch.optim.SGD(one.parameters(), lr=1.0), use_amp=amp, **settings)(
            loss_of
        )
        for one, amp in ((model, True), (twin, False))
    ]
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def moved(one):
        return float(torch.stack([(p - then).norm() for p, then in zip(one.parameters(), before, strict=True)]).norm())

    for step, one in zip(steps, (model, twin), strict=True):
        for _ in range(20):  # the first scales are too large for float16, and their steps are skipped
            step(one, batches[0])
            if moved(one):
                break
        assert moved(one) == pytest.approx(0.1, rel=0.02)


def test_compile_compiles_the_function_and_captures_nothing(monkeypatch):
    model, batches = problem()
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    monkeypatch.setattr("alcore_torchloop.graphs.graphs_for", lambda device: pytest.fail("a graph was asked for"))
    train = StaticCaptureTraining(model=model, optim=torch.optim.SGD(model.parameters(), lr=0.1), compile=True)(loss_of)
    evaluate = StaticCaptureEvaluateNoGrad(model=model, compile=True)(loss_of)
    assert compiled == [loss_of, loss_of]
    assert train(model, batches[0]).isfinite()
    assert evaluate(model, batches[0]).isfinite()


@pytest.mark.parametrize("label", [None, "surrogate"])
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_warning_of_a_step_that_can_not_be_captured_goes_to_the_logger_with_the_label(monkeypatch, kind, label):
    class Logger:
        def __init__(self):
            self.texts = []

        def warning(self, text, *arguments):
            self.texts.append(text % arguments)

    class Refusing:
        @contextlib.contextmanager
        def aside(self):
            yield

        def record(self):
            raise RuntimeError("no 100% chance")

    logger = Logger()
    monkeypatch.setattr("alcore_torchloop.graphs.graphs_for", lambda device: Refusing())
    model, batches = problem()
    settings = {"cuda_graph_warmup": 1, "logger": logger, "label": label}
    if kind == "training":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = StaticCaptureTraining(model=model, optim=optimizer, **settings)(loss_of)
    else:
        step = StaticCaptureEvaluateNoGrad(model=model, **settings)(loss_of)
    for _ in range(4):
        assert step(model, batches[0]).isfinite()
    (text,) = logger.texts
    assert text.startswith("surrogate: this step" if label else "this step")
    assert text.endswith("no 100% chance")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"amp_type": torch.float32}, "amp_type is torch.float32"),
        ({"cuda_graph_warmup": -1}, "cuda_graph_warmup is -1"),
        ({"cuda_graph_warmup": True}, "cuda_graph_warmup is True"),
        ({"logger": "loud"}, "logger is 'loud', a str"),
        ({"use_graphs": LOGGER}, "use_graphs is <Logger"),
        ({"use_amp": 11}, "use_amp is 11"),
        ({"compile": None}, "compile is None"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    model, _ = problem()
    with pytest.raises(UsageError, match=message):
        StaticCaptureTraining(model=model, optim=torch.optim.SGD(model.parameters(), lr=0.1), **settings)
    with pytest.raises(UsageError, match=message):
        StaticCaptureEvaluateNoGrad(model=model, **settings)


@pytest.mark.parametrize("first", [True, False, 0, torch.float16])
def test_arguments_in_an_order_without_a_logger_are_refused_with_the_order(first):
    model, _ = problem()
    with pytest.raises(UsageError, match=r"logger is .* The logger comes before use_graphs"):
        StaticCaptureTraining(model, torch.optim.SGD(model.parameters(), lr=0.1), first)
    with pytest.raises(UsageError, match=r"logger is .* The logger comes before use_graphs"):
        StaticCaptureEvaluateNoGrad(model, first)


PHYSICSNEMO = (
    ("logger", LOGGER),
    ("use_graphs", False),
    ("use_amp", False),
    ("compile", False),
    ("cuda_graph_warmup", 5),
    ("amp_type", torch.bfloat16),
)


def test_positional_arguments_have_the_order_of_physicsnemo():
    names = [name for name, _ in PHYSICSNEMO]
    assert [*inspect.signature(StaticCaptureTraining).parameters] == [
        "model", "optim", *names, "gradient_clip_norm", "label",
    ]  # fmt: skip
    assert [*inspect.signature(StaticCaptureEvaluateNoGrad).parameters] == ["model", *names, "label"]
    model, batches = problem()
    values = [value for _, value in PHYSICSNEMO]
    train = StaticCaptureTraining(model, torch.optim.SGD(model.parameters(), lr=0.1), *values, 0.5, "surrogate")
    evaluate = StaticCaptureEvaluateNoGrad(model, *values, "surrogate")
    assert train.gradient_clip_norm == 0.5
    for capture in (train, evaluate):
        assert (capture.use_graphs, capture.cuda_graph_warmup) == (False, 5)
        assert (capture._settings._logger, capture._settings._label) == (LOGGER, "surrogate")
        assert capture(loss_of)(model, batches[0]).isfinite()
