"""An ensemble of learners of one kind."""

import random

import numpy as np
import pytest
import torch
from alcore_bayes import Ensemble, ensemble
from alcore_testing import LearnerContract
from torch import nn
from torch.nn import functional

from alcore import DataInfo, UsageError, plugins
from alcore.outputs import predicted_classes

TWO = DataInfo("classification", 2, 4, (4,))
THREE = DataInfo("classification", 3, 4, (4,))


class TestEnsemble(LearnerContract):
    name = "ensemble"

    def make(self, info):
        return ensemble(info, members=3)


def made(info=THREE, seed=0, **parameters):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ensemble(info, **parameters)


def weights(member):
    return torch.cat([parameter.flatten() for parameter in member.parameters()])


def test_outputs_of_all_members():
    learner, inputs = made(members=4), torch.randn(7, 4)
    outputs = learner(inputs)
    assert outputs.shape == (4, 7, 3)
    assert torch.equal(outputs, torch.stack([member(inputs) for member in learner.members]))
    assert made(TWO)(inputs).shape == (5, 7, 1)
    assert learner.outputs == "logits"
    assert predicted_classes(outputs, "logits").shape == (7,)


def test_members_that_return_one_number_a_sample():
    learner = Ensemble([nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)) for _ in range(2)])
    assert learner(torch.zeros(6, 4)).shape == (2, 6, 1)


def test_members_begin_with_different_weights_that_the_seed_decides():
    first, again, other = made(), made(), made(seed=1)
    flat = [weights(member) for member in first.members]
    assert len({tuple(vector.tolist()) for vector in flat}) == 5
    assert all(torch.equal(weights(a), b) for a, b in zip(again.members, flat, strict=True))
    assert not any(torch.equal(weights(a), b) for a, b in zip(other.members, flat, strict=True))


def test_a_member_is_the_same_however_many_there_are():
    few, many = made(members=2), made(members=6)
    assert all(torch.equal(weights(a), weights(b)) for a, b in zip(few.members, many.members, strict=False))


def test_one_number_is_drawn_from_the_global_generator():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.randint(2**62, ())
        expected = torch.rand(())
        torch.manual_seed(5)
        ensemble(TWO, members=7)
        assert torch.equal(torch.rand(()), expected)


def test_parameters_reach_the_members():
    learner = made(learner="mlp", members=2, parameters={"hidden": [5, 6], "dropout": 0.5})
    assert [module.out_features for module in learner.members[0].modules() if isinstance(module, nn.Linear)] == [
        5,
        6,
        3,
    ]
    assert sum(isinstance(module, nn.Dropout) for module in learner.modules()) == 4


def test_ensemble_is_made_by_name():
    learner = plugins.installed().make("learner", "ensemble", info=TWO, members=2)
    assert len(learner.members) == 2


# -- training ----------------------------------------------------------------------------------------------------------


def batch(classes=3):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(20, 4, generator=draw), torch.randint(classes, (20,), generator=draw)


def test_the_loss_is_the_mean_of_the_members_losses():
    learner, (inputs, targets) = made(), batch()
    expected = torch.stack([functional.cross_entropy(member(inputs), targets) for member in learner.members]).mean()
    torch.testing.assert_close(learner.training_step((inputs, targets)), expected)
    torch.testing.assert_close(learner.validation_step((inputs, targets)), expected)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_each_member_is_trained_as_it_would_be_alone(optimizer):
    learner, data = made(TWO, members=3), batch(2)
    alone = made(TWO, members=3).members
    steps = optimizer(learner.parameters(), lr=0.1)
    for _ in range(5):
        steps.zero_grad()
        learner.training_step(data).backward()
        steps.step()
    for member, trained in zip(alone, learner.members, strict=True):
        steps = optimizer(member.parameters(), lr=0.1)
        for _ in range(5):
            steps.zero_grad()
            functional.binary_cross_entropy_with_logits(member(data[0]).flatten(), data[1].float()).backward()
            steps.step()
        torch.testing.assert_close(weights(trained), weights(member))


def test_members_with_steps_of_their_own():
    class Own(nn.Linear):
        def training_step(self, batch):
            return self(batch[0]).square().mean()

    learner = Ensemble([Own(4, 2), Own(4, 2)])
    data = batch(2)
    expected = torch.stack([member.training_step(data) for member in learner.members]).mean()
    torch.testing.assert_close(learner.training_step(data), expected)
    default = torch.stack([functional.cross_entropy(member(data[0]), data[1]) for member in learner.members]).mean()
    torch.testing.assert_close(learner.validation_step(data), default)


def test_members_that_return_probabilities():
    class Sure(nn.Module):
        outputs = "probabilities"

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.head(inputs).softmax(dim=1)

    learner, data = Ensemble([Sure(), Sure()]), batch()
    assert learner.outputs == "probabilities"
    expected = torch.stack([functional.cross_entropy(member.head(data[0]), data[1]) for member in learner.members])
    torch.testing.assert_close(learner.training_step(data), expected.mean())


def test_the_state_round_trips():
    learner, other = made(), made(seed=1)
    other.load_state_dict(learner.state_dict())
    inputs = torch.randn(5, 4)
    assert torch.equal(other(inputs), learner(inputs))


@pytest.mark.parametrize("draw", [lambda: float(np.random.random()), random.random, lambda: float(torch.rand(()))])
def test_torchs_seed_decides_whatever_generator_the_members_draw_from(monkeypatch, draw):
    class Registry:
        def offer(self, kind, name):
            return plugins.Offer(kind, name, drawn, None)

    def drawn():
        member = nn.Linear(4, 1)
        nn.init.constant_(member.weight, draw())
        return member

    monkeypatch.setattr(plugins, "installed", Registry)
    first = [float(member.weight[0, 0].detach()) for member in made(learner="drawn").members]
    draw()
    again = [float(member.weight[0, 0].detach()) for member in made(learner="drawn").members]
    assert again == first
    assert len(set(first)) == 5


def test_making_one_leaves_python_and_numpy_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    made()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"members": 1}, "members is 1; at least 2"),
        ({"learner": "ensemble"}, "can't be ensembles"),
        ({"learner": "mlq"}, "no plugin offers the learner 'mlq': did you mean 'mlp'"),
        ({"parameters": {"hiden": [3]}}, "has no parameter 'hiden': did you mean 'hidden'"),
        ({"parameters": {"dropout": "much"}}, "dropout is 'much'; it must be float"),
    ],
)
def test_bad_parameters(parameters, words):
    with pytest.raises(UsageError, match=words):
        ensemble(TWO, **parameters)


def test_a_learner_that_is_no_module_is_refused(monkeypatch):
    class Registry:
        def offer(self, kind, name):
            return plugins.Offer(kind, name, lambda: object(), None)

    monkeypatch.setattr(plugins, "installed", Registry)
    with pytest.raises(UsageError, match=r"makes a object, which is not a torch\.nn\.Module"):
        ensemble(TWO, learner="svm")


def test_members_that_do_not_fit_are_refused():
    sure = nn.Linear(4, 2)
    sure.outputs = "probabilities"
    with pytest.raises(UsageError, match="some members of the ensemble return logits"):
        Ensemble([nn.Linear(4, 2), sure])
    with pytest.raises(UsageError, match="at least 2 members"):
        Ensemble([nn.Linear(4, 2)])
    with pytest.raises(UsageError, match=r"returned \(2, 3, 3\)"):
        Ensemble([nn.Unflatten(1, (3, 3))] * 2)(torch.zeros(2, 9))


def test_members_of_a_regression_look_at_the_labels():
    learner = ensemble(DataInfo("regression", features=4), members=2)
    inputs, targets = torch.randn(30, 4), 300 + 50 * torch.randn(30)
    learner.begin_training([(inputs[:20], targets[:20]), (inputs[20:], targets[20:])])
    assert learner(inputs).shape == (2, 30, 1)
    assert all(float(member.target_mean) == pytest.approx(float(targets.mean())) for member in learner.members)
    made(members=2).begin_training([(inputs, targets)])  # classifiers have nothing to see


def test_members_with_variances_are_stacked_and_their_fields_pooled():
    learner = made(DataInfo("regression", features=4), members=3, parameters={"outputs": "mean-variance"})
    assert learner.outputs == "mean-variance"
    inputs = torch.randn(7, 4)
    assert learner(inputs).shape == (3, 7, 2)

    class Field(nn.Module):
        outputs = "mean-variance"

        def __init__(self, seed):
            super().__init__()
            self.maps = torch.rand(1, 4, 3, 2, generator=torch.Generator().manual_seed(seed)) + 0.1

        def forward(self, rows):
            return self.maps * (rows[:, :1, None, None].square() + 1)

    fields = [Field(seed) for seed in range(3)]
    pooled = Ensemble(fields, "regression")(inputs)
    each = torch.stack([field(inputs) for field in fields])
    mean, second = each[:, :, :2].mean(dim=0), (each[:, :, 2:] + each[:, :, :2].square()).mean(dim=0)
    torch.testing.assert_close(pooled, torch.cat([mean, second - mean.square()], dim=1))
    with pytest.raises(UsageError, match="some members of the ensemble return mean-variance and some values"):
        Ensemble([*fields, nn.Linear(4, 2)], "regression")
