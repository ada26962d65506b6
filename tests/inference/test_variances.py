"""Outputs that have a variance, by dropout where the learner has none of its own; covariances, asked for in parts."""

import queue

import pytest
import torch

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.inference import has_covariance, posterior_covariance, predictive
from alcore.outputs import mc_dropout, mean_and_variance


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


class Net(torch.nn.Module):
    """A network with or without dropout, of any kind of outputs."""

    def __init__(self, kind="values", dropout=0.0, columns=1):
        super().__init__()
        self.outputs = kind
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, columns))

    def forward(self, inputs):
        return self.body(inputs)


def driver_of(learner, inputs):
    return Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=1, root_log_dir="not-made", device="cpu", seed=0),
        learner,
        c.StrategiesConfig([], queue.Queue),
        c.TrainingConfig(TensorPool(inputs, inputs[:, 0], labeled=(0,)), max_training_epochs=0),
    )


@pytest.mark.parametrize(("kind", "columns"), [("values", 1), ("mean-variance", 2)])
def test_predictive_draws_by_dropout_where_there_is_some(kind, columns):
    learner, inputs = Net(kind, 0.4, columns), drawn(9, 3).float()
    infer = predictive(driver_of(learner, inputs), draws=4, seed=3)
    whole = infer(inputs)
    assert whole.shape == (4, 9, columns)
    torch.testing.assert_close(whole, mc_dropout(learner, inputs, 4, 3))
    torch.testing.assert_close(infer(inputs[5:]), whole[:, 5:])  # the masks are those of the first call


def test_predictive_leaves_what_has_a_variance_as_it_is():
    inputs = drawn(9, 3).float()
    alone = Net("mean-variance", columns=2)
    assert predictive(driver_of(alone, inputs))(inputs).shape == (9, 2)
    with pytest.raises(UsageError, match=r"Net predicts values of shape \(9, 1\) without a variance"):
        predictive(driver_of(Net(), inputs))(inputs)


def test_fields_by_dropout_have_their_values_in_the_last_axis():
    class Field(Net):
        def forward(self, inputs):
            return super().forward(inputs).reshape(len(inputs), 4, 2, 3)

    learner, inputs = Field("mean-variance", 0.4, 24), drawn(9, 3).float()
    outputs = predictive(driver_of(learner, inputs), draws=5)(inputs)
    assert outputs.shape == (5, 9, 24)
    flat = mean_and_variance(outputs, "mean-variance")
    learner.eval()
    own = mean_and_variance(learner(inputs).detach(), "mean-variance")
    assert flat.mean.shape == own.mean.flatten(1).shape


def test_covariance_is_asked_for_in_parts(monkeypatch):
    class Kernel(Net):
        def posterior_covariance(self, a, b=None):
            assert len(a) <= 4
            return (a @ a.T).diagonal()[None] if b is None else (a @ b.T)[None]

    learner, inputs = Kernel(), drawn(30, 3).float()
    driver = driver_of(learner, inputs)
    monkeypatch.setattr("alcore.inference.variances._ROWS", 4)
    a, b = torch.arange(3, 17), torch.tensor([20, 4])
    covariance = posterior_covariance(driver, a, b)
    assert covariance.dtype == torch.float64
    torch.testing.assert_close(covariance[0], (inputs[a] @ inputs[b].T).double())
    torch.testing.assert_close(posterior_covariance(driver, a)[0], inputs[a].square().sum(dim=1).double())
    assert has_covariance(learner)
    assert not has_covariance(Net())
