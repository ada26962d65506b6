"""Dropout alone acts, with the same masks for every sample, and leaves nothing behind."""

import pytest
import torch
from alcore_testing import untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alcore.errors import UsageError
from alcore.outputs.dropout import MCDropout, dropout_layers, mc_dropout
from alcore.outputs.modes import evaluating


class Watched:
    """Gives `untouched` a learner to watch."""

    def __init__(self, learner):
        self.learner = learner

    def pools(self):
        return {}


def network(*layers, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), *layers, nn.Linear(16, 3))


def inputs(n=9, *shape):
    return torch.randn(n, *(shape or (4,)), generator=torch.Generator().manual_seed(1))


def test_each_pass_is_one_network_for_all_samples():
    """Identity with dropout: what a pass drops is dropped for each sample, and the rest is scaled."""
    outputs = mc_dropout(nn.Sequential(nn.Dropout(0.25)), torch.ones(6, 400), samples=50)
    assert outputs.shape == (50, 6, 400)
    assert torch.equal(outputs, outputs[:, :1].expand(-1, 6, -1))
    assert sorted(outputs.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (outputs == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    dropped = (outputs[:, 0] == 0).double()
    assert dropped.mean(dim=0).std().item() == pytest.approx(
        (0.25 * 0.75 / 50) ** 0.5, rel=0.2
    )  # units are independent
    assert len(dropped.unique(dim=0)) == 50


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(9)), size=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
def test_a_samples_outputs_depend_on_no_other_sample(order, size, seed):
    learner, pool = network(nn.Dropout(0.4), nn.AlphaDropout(0.1)), inputs()
    whole = mc_dropout(learner, pool, 5, seed)
    sampler = MCDropout(learner, 5, seed)
    with evaluating(learner):
        parts = [sampler(lambda rows=rows: learner(pool[rows])) for rows in torch.tensor(order).split(size)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole[:, order], rtol=1e-5, atol=1e-6)


def test_the_seed_decides():
    learner = network(nn.Dropout(0.4))
    assert torch.equal(mc_dropout(learner, inputs(), 5, 7), mc_dropout(learner, inputs(), 5, 7))
    assert not torch.equal(mc_dropout(learner, inputs(), 5, 7), mc_dropout(learner, inputs(), 5, 8))


def test_layers_and_calls_have_masks_of_their_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, x):
            return torch.cat([self.one(x), self.one(x), self.two(x)], dim=1)

    parts = mc_dropout(Twice(), torch.ones(2, 64), 3).split(64, dim=2)
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    assert not torch.equal(parts[1], parts[2])


def test_a_layer_that_stands_in_two_places_is_sampled():
    shared = nn.Dropout(0.5)
    outputs = mc_dropout(nn.Sequential(shared, nn.Linear(8, 8), shared), torch.ones(3, 8), 4)
    assert len(outputs.unique(dim=0)) == 4


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Dropout1d(0.5), (6, 5)),
        (nn.Dropout2d(0.5), (6, 5, 4)),
        (nn.Dropout3d(0.5), (6, 2, 3, 4)),
        (nn.FeatureAlphaDropout(0.5), (6, 5, 4)),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, nn.Module) else str(one),
)
def test_channels_are_dropped_whole(layer, shape):
    outputs = mc_dropout(nn.Sequential(layer, nn.Flatten()), torch.ones(7, *shape), 40).reshape(40, 7, *shape)
    channels = outputs.reshape(40, 7, 6, -1)
    assert torch.equal(channels, channels[:, :1, :, :1].expand_as(channels))
    assert len(channels[:, 0, :, 0].unique(dim=0)) > 10
    assert len(channels[:, 0, :, 0].unique()) == 2


@pytest.mark.parametrize("layer", [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Dropout2d])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_values_are_those_of_torch(layer, p):
    """What a dropped unit becomes, and what a kept one, is what the layer itself gives in train mode."""
    units = torch.full((2, 300, 1, 1), 1.7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = layer(p).train()(units).unique()
    ours = mc_dropout(nn.Sequential(layer(p), nn.Flatten()), units, 2).unique()
    torch.testing.assert_close(ours, theirs)


def test_the_mean_over_masks_is_the_output_in_eval_mode():
    learner = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 2))
    outputs = mc_dropout(learner, inputs(), 4000)
    torch.testing.assert_close(outputs.mean(dim=0), learner.eval()(inputs()).detach(), rtol=0, atol=0.05)


def test_everything_else_is_in_eval_mode():
    learner = network(nn.Dropout(0.4)).train()
    seen = []
    learner[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    mc_dropout(learner, inputs(), 3)
    assert seen == [False] * 3


def test_modes_hooks_and_generators_are_unchanged():
    learner = network(nn.Dropout(0.4), nn.Dropout(0.0), nn.FeatureAlphaDropout(0.2))
    for place, module in enumerate(learner.modules()):
        module.training = place % 2 == 0
    for parameter in learner.parameters():
        parameter.grad = torch.ones_like(parameter)
    given_ = inputs()
    with untouched(Watched(learner)):
        outputs = mc_dropout(learner, given_, 4)
    assert not outputs.requires_grad
    assert torch.equal(given_, inputs())


@pytest.mark.parametrize("at", [1, 3])
def test_modes_hooks_and_generators_are_unchanged_after_an_error(at):
    class Breaks(nn.Module):
        calls = 0

        def forward(self, x):
            Breaks.calls += 1
            if Breaks.calls == at:
                raise RuntimeError("broken")
            return x

    learner = network(nn.Dropout(0.4), Breaks()).train()
    with untouched(Watched(learner)), pytest.raises(RuntimeError, match="broken"):
        mc_dropout(learner, inputs(), 4)
    assert torch.equal(learner.eval()(inputs()), learner(inputs()))  # no hook drops anything any more


def test_in_place_layers_leave_the_inputs_alone():
    given_ = inputs()
    outputs = mc_dropout(nn.Sequential(nn.Dropout(0.5, inplace=True)), given_, 10)
    assert torch.equal(given_, inputs())
    assert not (outputs == 0).all(dim=0).any()  # as it would be if one pass dropped from what the last had left


def test_hooks_of_others_see_what_is_dropped():
    learner = nn.Sequential(nn.Dropout(0.5))
    seen = []
    learner[0].register_forward_hook(lambda _module, _given, units: seen.append(units))
    outputs = mc_dropout(learner, torch.ones(3, 50), 2)
    assert torch.equal(torch.stack(seen), outputs)


def test_a_transformer_does_not_go_around_it():
    """In eval mode torch has a fast path that calls no dropout module."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)

        def forward(self, x):
            return self.layer(x).mean(dim=1)

    learner, sequences = Pooled(), inputs(5, 6, 8)
    outputs = mc_dropout(learner, sequences, 4)
    assert outputs.shape == (4, 5, 8)
    assert len(outputs.unique(dim=0)) == 4
    alone = mc_dropout(learner, sequences[2:3], 4)
    torch.testing.assert_close(alone, outputs[:, 2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3)])
def test_shapes_of_outputs(shape):
    learner = nn.Sequential(nn.Dropout(0.5))
    outputs = mc_dropout(learner, torch.ones(shape), 3)
    assert outputs.shape == (3, 5, shape[1] if len(shape) > 1 else 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_floating_point_type_stays(dtype):
    learner = network(nn.Dropout(0.4)).to(dtype)
    assert mc_dropout(learner, inputs().to(dtype), 3).dtype == dtype


# -- which layers count ------------------------------------------------------------------------------------------------


def test_layers_that_count():
    class Renamed(nn.Dropout):
        pass

    class Own(nn.Dropout):
        def forward(self, x):
            return x

    class Scripted(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5, self.training)

    learner = nn.ModuleDict(
        {
            "yes": nn.Dropout(0.1), "also": Renamed(0.1), "off": nn.Dropout(0.0), "own": Own(0.5),
            "function": Scripted(), "inner": nn.LSTM(4, 4, 2, dropout=0.5), "deep": nn.Sequential(nn.Dropout2d(0.1)),
        }
    )  # fmt: skip
    assert list(dropout_layers(learner)) == ["yes", "also", "deep.0"]
    assert dropout_layers(lambda x: x) == {}


@pytest.mark.parametrize("learner", [nn.Linear(4, 2), nn.Sequential(nn.Dropout(0.0)), object()])
def test_a_learner_without_dropout_is_refused(learner):
    with pytest.raises(UsageError, match=r"has no dropout layer.*torch\.nn\.Dropout.*ensemble.*\(K, B, C\)"):
        MCDropout(learner)


def test_a_layer_that_is_never_called_is_told():
    class Forgets(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x)

    with pytest.raises(UsageError, match=r"none of the learner's dropout layers \(drop\) took part"):
        mc_dropout(Forgets(), inputs())


def test_samples_that_are_not_along_the_first_axis_are_told():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(x.transpose(0, 1)).mean(dim=0)

    learner = TimeFirst()
    sampler = MCDropout(learner, 2)
    sampler(lambda: learner(torch.ones(3, 5, 4)))
    with pytest.raises(UsageError, match=r"'drop' was given units of shape \(3, 4\) a sample, and then \(2, 4\)"):
        sampler(lambda: learner(torch.ones(2, 5, 4)))


def test_other_outputs_are_told():
    with pytest.raises(UsageError, match=r"returned \(2, 3, 4\)"):
        mc_dropout(nn.Sequential(nn.Dropout(0.5)), torch.ones(2, 3, 4))
    with pytest.raises(UsageError, match="samples is 0"):
        MCDropout(nn.Sequential(nn.Dropout(0.5)), 0)


# -- masks that are given ----------------------------------------------------------------------------------------------


def test_masks_are_drawn_once_for_each_layer_and_call():
    asked = []

    def uniform(name, call, shape):
        asked.append((name, call, shape))
        return torch.zeros(2, *shape) if call else torch.ones(2, *shape)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return torch.cat([self.drop(x), self.drop(x)], dim=1)

    learner = Twice().eval()
    sampler = MCDropout(learner, 2, uniform=uniform)
    for _ in range(2):
        outputs = sampler(lambda: learner(torch.ones(3, 4)))
    assert asked == [("drop", 0, (4,)), ("drop", 1, (4,))]
    assert torch.equal(outputs[0], torch.tensor([[2.0] * 4 + [0.0] * 4] * 3))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, torch.tensor(1.0) / 0.85), (torch.float64, 1 / 0.85)])
def test_scale_is_computed_in_the_given_type(dtype, scale):
    layer = nn.Sequential(nn.Dropout(0.15)).double().eval()
    sampler = MCDropout(layer, 1, uniform=lambda _name, _call, shape: torch.ones(1, *shape), scale_dtype=dtype)
    assert sampler(lambda: layer(torch.ones(2, 3, dtype=torch.float64)))[0, 0, 0].item() == float(scale)
