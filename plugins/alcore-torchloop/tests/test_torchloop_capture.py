"""Steps made by the static-capture decorators, on a CPU."""

import copy

import pytest
import torch
from alcore_torchloop import StaticCaptureEvaluateNoGrad, StaticCaptureTraining


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
    optimizer, other = (torch.optim.Adam(one.parameters(), lr=0.05) for one in (model, twin))
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
