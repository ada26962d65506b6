"""The Gaussian process against gpytorch and against formulas written down in full."""

import math

import gpytorch
import pytest
import torch
from alcore_gp import GaussianProcess
from alcore_gp.kernels import correlations
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import DataInfo, UsageError
from alcore.outputs import mean_and_variance


def labels(count=30, seed=0, noise=0.1):
    drawn = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, generator=drawn, dtype=torch.float64) * torch.tensor([4.0, 100.0]) + 7
    y = torch.sin(x[:, 0]) * 50 + x[:, 1] + noise * torch.randn(count, generator=drawn, dtype=torch.float64) + 1000
    return x, y


def fitted(x, y, kernel="matern", starts=1, seed=0):
    learner = GaussianProcess(kernel, starts)
    learner.fit_batches([(x[:7], y[:7]), (x[7:], y[7:])], torch.Generator().manual_seed(seed))
    return learner


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_predictions_are_those_of_gpytorch(kernel):
    x, y = labels()
    learner, new = fitted(x, y, kernel), labels(9, 1)[0]
    unit = lambda rows: (rows - x.amin(0)) / (x.amax(0) - x.amin(0))  # noqa: E731
    z = (y - y.mean()) / y.std(correction=0)

    any_noise = gpytorch.constraints.GreaterThan(0.0)

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(unit(x), z, gpytorch.likelihoods.GaussianLikelihood(noise_constraint=any_noise))
            self.mean_module = gpytorch.means.ConstantMean()
            base = gpytorch.kernels.RBFKernel if kernel == "rbf" else gpytorch.kernels.MaternKernel
            self.covar_module = gpytorch.kernels.ScaleKernel(base(ard_num_dims=2))

        def forward(self, rows):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(rows), self.covar_module(rows))

    model = Model().double()
    model.initialize(**{
        "likelihood.noise": learner.noise[0], "covar_module.outputscale": learner.outputscale[0],
        "covar_module.base_kernel.lengthscale": learner.lengthscale, "mean_module.constant": learner.constant[0],
    })  # fmt: skip
    model.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        posterior = model(unit(new))
        label = model.likelihood(posterior)
    moments = mean_and_variance(learner(new), "mean-variance")
    scale = y.std(correction=0)
    torch.testing.assert_close(moments.mean[:, 0], label.mean * scale + y.mean(), rtol=1e-8, atol=0)
    torch.testing.assert_close(moments.noise[:, 0], label.variance * scale**2, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        learner.posterior_covariance(new[:4], new)[0], posterior.covariance_matrix[:4] * scale**2, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        learner.posterior_covariance(new)[0], posterior.variance * scale**2, rtol=1e-5, atol=1e-6
    )


@settings(deadline=None, max_examples=25)
@given(kernel=st.sampled_from(["matern", "rbf"]), seed=st.integers(0, 1000))
def test_correlations_are_the_formula_pair_by_pair(kernel, seed):
    drawn = torch.Generator().manual_seed(seed)
    a, b, lengths = (torch.rand(n, 3, generator=drawn, dtype=torch.float64) + 0.1 for n in (4, 5, 2))
    matrices = correlations(kernel, a, b, lengths)
    for t in range(2):
        for i in range(4):
            for j in range(5):
                r = math.dist((a[i] / lengths[t]).tolist(), (b[j] / lengths[t]).tolist())
                matern = (1 + math.sqrt(5) * r + 5 / 3 * r * r) * math.exp(-math.sqrt(5) * r)
                expected = math.exp(-r * r / 2) if kernel == "rbf" else matern
                assert float(matrices[t, i, j]) == pytest.approx(expected, rel=1e-9)
    assert torch.allclose(correlations(kernel, a, a, lengths).diagonal(dim1=1, dim2=2), torch.ones(2, 4).double())


def test_fit_finds_the_noise_and_the_input_that_matters():
    x, y = labels(80, noise=5.0)
    more = torch.cat([x, torch.rand(80, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))], dim=1)
    learner = fitted(more, y)
    assert float((learner.noise * learner.target_scale**2).sqrt()) == pytest.approx(5.0, rel=0.3)
    assert float(learner.lengthscale[0, 2]) > 5 * float(learner.lengthscale[0, 0])


def test_several_quantities_are_independent_processes():
    x, y = labels()
    both = fitted(x, torch.stack([y, torch.cos(x[:, 1])], dim=1))
    outputs = both(x[:5])
    assert outputs.shape == (5, 4)
    alone = [fitted(x, y)(x[:5]), fitted(x, torch.cos(x[:, 1]))(x[:5])]
    torch.testing.assert_close(outputs[:, [0, 2]], alone[0])
    torch.testing.assert_close(outputs[:, [1, 3]], alone[1])
    assert both.posterior_covariance(x[:5], x[:3]).shape == (2, 5, 3)


def test_same_labels_and_seed_give_the_same_bytes_in_any_precision():
    x, y = labels()
    first, second = fitted(x, y, starts=3, seed=4), fitted(x, y, starts=3, seed=4)
    assert torch.equal(first(x), second(x))
    low = GaussianProcess().to(torch.float32)
    low.load_state_dict(first.state_dict())
    assert low.noise.dtype == torch.float64
    assert torch.equal(low(x), first(x))
    low.load_state_dict(GaussianProcess().state_dict())  # as `reset_learner` does
    assert low(x)[:, 1].tolist() == [1.0] * 30


def test_large_batches_are_predicted_in_parts(monkeypatch):
    x, y = labels()
    learner = fitted(x, y)
    whole, covariances = learner(x), learner.posterior_covariance(x)
    monkeypatch.setattr("alcore_gp.learner._NUMBERS", 7 * 30)
    torch.testing.assert_close(learner(x), whole, rtol=1e-9, atol=1e-9)  # variances at labels are differences
    torch.testing.assert_close(learner.posterior_covariance(x), covariances, rtol=1e-6, atol=1e-9)


def test_equal_labels_and_repeated_inputs_can_be_fitted():
    x, _ = labels()
    learner = fitted(torch.cat([x[:5]] * 6), torch.full((30,), 3.0))
    assert learner(x)[:, 0].tolist() == pytest.approx([3.0] * 30)
    assert bool((learner(x)[:, 1] > 0).all())


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(3, 2), torch.tensor([1.0, math.nan, 2.0]), "a target is NaN or infinite, the first in row 1"),
        (torch.tensor([[1.0], [math.inf]]), torch.ones(2), "an input is NaN or infinite, the first in row 1"),
        (torch.ones(8001, 1), torch.ones(8001), "8001 labels, .* takes up to 8000"),
        (torch.ones(2, 1), torch.ones(2, 65), "65 quantities, and there is one process for each"),
    ],
)
def test_labels_that_cant_be_fitted_are_refused(x, y, message):
    with pytest.raises(UsageError, match=message):
        GaussianProcess().fit_batches([(x, y)], torch.Generator())


def test_more_labels_than_max_labels_are_drawn_from():
    x, y = torch.rand(90, 2), torch.rand(90)
    drawn = []
    for seed in (0, 0, 1):
        learner = GaussianProcess(starts=1, max_labels=30)
        with pytest.warns(UserWarning, match="fitted to 30 of them"):
            learner.fit_batches([(x, y)], torch.Generator().manual_seed(seed))
        drawn.append(learner.labeled_inputs)
    assert len(drawn[0]) == 30
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_up_to_max_labels_all_are_fitted(recwarn):
    x, y = torch.rand(30, 2), torch.rand(30)
    learners = [GaussianProcess(starts=1, max_labels=most) for most in (30, None)]
    for learner in learners:
        learner.fit_batches([(x, y)], torch.Generator())
    assert learners[0](x).equal(learners[1](x))
    assert not recwarn.list


@pytest.mark.parametrize("most", [0, 8001])
def test_max_labels_that_cant_be_is_refused(most):
    with pytest.raises(UsageError, match=f"max_labels is {most}; it is from 1 to 8000"):
        GaussianProcess(max_labels=most)


def test_wrong_parameters_and_learners_are_refused():
    with pytest.raises(UsageError, match="it is for a regression, and the task of this data is classification"):
        GaussianProcess(info=DataInfo("classification", features=2, classes=2))
    with pytest.raises(UsageError, match="at least 1 point"):
        GaussianProcess(starts=0)
    with pytest.raises(UsageError, match="kernel"):
        GaussianProcess("cubic")
