"""The multi-layer perceptron."""

import queue

import numpy as np
import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_moons import MLP, RegressionMLP, mlp
from alcore_testing import toy_loop
from sklearn.linear_model import Ridge

from alcore import BaseQuery, DataInfo, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.outputs import evaluating


def linears(model):
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


def test_two_in_sixteen_hidden_one_out():
    model = MLP()
    assert [(layer.in_features, layer.out_features) for layer in linears(model)] == [(2, 16), (16, 1)]
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * 16 + 16 + 16 + 1
    inputs = torch.randn(7, 2)
    first, last = linears(model)
    hidden = inputs @ first.weight.T + first.bias
    expected = (hidden * torch.sigmoid(hidden)) @ last.weight.T + last.bias  # SiLU(x) = x sigmoid(x)
    torch.testing.assert_close(model(inputs), expected)
    assert not hasattr(model, "outputs")  # logits, as the default is


def test_hidden_layers_and_dropout():
    model = MLP(3, 4, hidden=[5, 6], dropout=0.5)
    assert [(layer.in_features, layer.out_features) for layer in linears(model)] == [(3, 5), (5, 6), (6, 4)]
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in model.modules()) == 2
    inputs = torch.randn(20, 3)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in MLP().modules())
    assert len(linears(MLP(hidden=[]))) == 1


@pytest.mark.parametrize(
    ("info", "inputs", "outputs"),
    [
        (DataInfo("classification", classes=2, features=2), (2,), 1),
        (DataInfo("classification", classes=5, features=3), (3,), 5),
        (DataInfo("regression", features=4), (4,), 1),
        (DataInfo("regression", features=4, target_shape=(2, 3)), (4,), 6),
        (DataInfo("classification", classes=10, shape=(1, 4, 4)), (1, 4, 4), 10),
    ],
    ids=["two classes", "five classes", "regression", "fields", "images"],
)
def test_mlp_has_inputs_and_outputs_of_the_data(info, inputs, outputs):
    model = mlp(info, hidden=(8,))
    assert model(torch.randn(6, *inputs)).shape == (6, outputs)
    assert linears(model)[0].out_features == 8


def test_data_of_unknown_size_is_refused():
    with pytest.raises(UsageError, match=r"is unknown \(DataInfo.features\)"):
        mlp(DataInfo("classification", classes=2))


# -- regression --------------------------------------------------------------------------------------------------------


def problem(size=40, features=3, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, features, generator=draw)
    return inputs, scale * (300 + 50 * inputs[:, 0] + 20 * torch.randn(size, generator=draw))


def batches_of(inputs, targets, size=16):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def test_a_regression_starts_at_the_mean_of_the_labels_and_has_their_unit():
    torch.manual_seed(0)
    model, (inputs, targets) = mlp(DataInfo("regression", features=3)), problem()
    raw = model.layers(inputs)
    torch.testing.assert_close(model(inputs), raw)  # as they are, before it has seen labels
    model.begin_training(batches_of(inputs, targets))
    targets_wide = targets.double()
    assert float(model.target_mean) == pytest.approx(float(targets_wide.mean()))
    assert float(model.target_scale) == pytest.approx(float(targets_wide.std(correction=0)))
    torch.testing.assert_close(model(inputs), raw * model.target_scale + model.target_mean)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_the_loss_is_the_squared_error_in_deviations_with_the_penalty(shape):
    torch.manual_seed(0)
    model, (inputs, targets) = RegressionMLP(3, penalty=0.5), problem()
    model.begin_training(batches_of(inputs, targets.reshape(shape)))
    squared = float(((model(inputs)[:, 0].detach() - targets) / targets.std(correction=0)).square().mean())
    weights = sum(float(layer.weight.detach().square().sum()) for layer in linears(model))
    assert model.validation_step((inputs, targets.reshape(shape))).item() == pytest.approx(squared, rel=1e-4)
    expected = pytest.approx(squared + 0.5 / 40 * weights, rel=1e-4)
    assert model.training_step((inputs, targets.reshape(shape))).item() == expected


@pytest.mark.parametrize("penalty", [0.1, 2.0, 30.0])
def test_a_single_layer_is_ridge_regression(penalty):
    inputs, targets = (tensor.double() for tensor in problem())
    model = RegressionMLP(3, hidden=(), penalty=penalty).double()
    model.begin_training(batches_of(inputs, targets))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = model.training_step((inputs, targets))
        loss.backward()
        return loss

    optimizer.step(closure)
    ridge = Ridge(alpha=penalty).fit(inputs.numpy(), targets.numpy())
    np.testing.assert_allclose(model(inputs).detach().numpy()[:, 0], ridge.predict(inputs.numpy()), rtol=1e-6)


def test_a_run_does_not_depend_on_the_unit_of_the_targets(tmp_path):
    outputs = {}
    for scale in (1.0, 1024.0):  # a power of two, so that rounding is the same
        torch.manual_seed(0)
        inputs, targets = problem(scale=scale)
        learner = mlp(DataInfo("regression", features=3), dropout=0.2)
        driver_of(tmp_path / str(scale), learner, inputs, targets, optimizer=(torch.optim.SGD, {"lr": 0.05})).run()
        with evaluating(learner):
            outputs[scale] = learner(inputs)
    assert torch.equal(outputs[1.0] * 1024, outputs[1024.0])
    assert float(outputs[1.0].std()) > 5, "it has learned nothing"


class Next(BaseQuery):
    """Asks for the next five samples."""

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(next(iter(self.driver.candidates()))[:5].tolist())


def driver_of(folder, learner, inputs, targets, *, optimizer=(torch.optim.Adam, {"lr": 0.01}), **training):
    return Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=3, root_log_dir=folder, device="cpu", seed=0),
        learner,
        c.StrategiesConfig([Next()], queue.Queue, DummyLabelStrategy()),
        c.TrainingConfig(
            TensorPool(inputs, targets, labeled=range(10)),
            max_training_epochs=5,
            optimizer_config=c.OptimizerConfig(*optimizer),
            train_loop_fn=toy_loop,
            **training,
        ),
    )


@pytest.mark.parametrize(("reset", "labels"), [(False, 10), (True, 20)])
def test_mean_and_deviation_are_those_of_the_first_training_or_anew_if_it_is_reset(tmp_path, reset, labels):
    learner, (inputs, targets) = mlp(DataInfo("regression", features=3)), problem()
    driver_of(tmp_path, learner, inputs, targets, reset_learner=reset).run()
    assert int(learner.label_count) == labels
    assert float(learner.target_mean) == pytest.approx(float(targets[:labels].double().mean()))
    assert float(learner.penalty_weight) == pytest.approx(2 / 20), "the penalty is that of all labels"


def test_a_training_step_of_ones_own_sees_the_unit_of_the_targets(tmp_path):
    seen = []

    def step(model, batch):
        inputs, targets = batch
        outputs = model(inputs)
        seen.append(float(outputs.detach().mean()))
        return torch.nn.functional.l1_loss(outputs[:, 0], targets)

    learner, (inputs, targets) = mlp(DataInfo("regression", features=3)), problem()
    driver_of(tmp_path, learner, inputs, targets).run(train_step_fn=step)
    assert 200 < seen[0] < 400


@pytest.mark.parametrize("targets", [torch.full((6,), 7.3), torch.tensor([7.3]), torch.tensor([1e30, -1e30] * 3)])
def test_equal_few_and_huge_labels_give_finite_outputs(targets):
    model, inputs = RegressionMLP(3), torch.randn(len(targets), 3)
    model.begin_training([(inputs, targets)])
    assert bool(model(inputs).isfinite().all())
    assert bool(model.training_step((inputs, targets)).isfinite())
    assert float(model.target_scale) == (1.0 if float(targets[0]) < 10 else pytest.approx(1e30))


def test_targets_of_other_quantities_and_odd_penalties_are_refused():
    model = RegressionMLP(3, 2)
    with pytest.raises(UsageError, match=r"predicts 2 quantities a sample, and the targets have the shape \(5, 3\)"):
        model.begin_training([(torch.zeros(5, 3), torch.zeros(5, 3))])
    with pytest.raises(UsageError, match="penalty is -1"):
        mlp(DataInfo("regression", features=3), penalty=-1)
    with pytest.raises(UsageError, match="penalty is for a regression"):
        mlp(DataInfo("classification", classes=2, features=3), penalty=1.0)


def test_a_classifier_has_the_parameters_and_state_of_an_mlp():
    model = mlp(DataInfo("classification", classes=2, features=2))
    assert type(model) is MLP
    assert set(model.state_dict()) == set(MLP().state_dict())


def test_variances_have_the_unit_of_the_targets_and_the_likelihood_is_the_loss():
    info = DataInfo("regression", features=3)
    model = mlp(info, hidden=(5,), penalty=0.0, outputs="mean-variance")
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(20, 3, generator=draw), 1000 + 50 * torch.randn(20, generator=draw)
    model.begin_training([(inputs, targets)])
    mean, variance = model(inputs).detach().double().T
    assert model.outputs == "mean-variance"
    assert 900 < float(mean.mean()) < 1100
    assert 100 < float(variance.mean()) < 10000
    density = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(targets.double()).mean()
    scale = float(model.target_scale)
    standardized = density - np.log(scale) - np.log(2 * np.pi) / 2
    assert float(model.training_step((inputs, targets)).detach()) == pytest.approx(float(standardized), rel=1e-4)
    assert float(model.validation_step((inputs, targets)).detach()) == pytest.approx(float(standardized), rel=1e-4)
    same = mlp(info, hidden=(5,))
    same.load_state_dict({**model.state_dict(), "layers.3.weight": model.layers[-1].weight[:1],
                          "layers.3.bias": model.layers[-1].bias[:1]})  # fmt: skip
    torch.testing.assert_close(same(inputs)[:, 0].double(), mean)
    assert same.outputs == "values"


def test_variance_learns_where_targets_are_noisy():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.rand(600, 1, generator=draw) * 2 - 1
    targets = 30 * inputs[:, 0] + torch.where(inputs[:, 0] > 0, 10.0, 1.0) * torch.randn(600, generator=draw)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = mlp(DataInfo("regression", features=1), hidden=(16,), outputs="mean-variance", penalty=0.1)
    model.begin_training([(inputs, targets)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        model.training_step((inputs, targets)).backward()
        optimizer.step()
    quiet, noisy = model(torch.tensor([[-0.6], [0.6]])).detach()[:, 1].sqrt().tolist()
    assert 0.5 < quiet < 2.5
    assert 7 < noisy < 13


def test_variances_of_a_classification_are_refused():
    with pytest.raises(UsageError, match="outputs = 'mean-variance' is for a regression"):
        mlp(DataInfo("classification", classes=2, features=2), outputs="mean-variance")
