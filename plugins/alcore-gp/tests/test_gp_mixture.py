"""Averages over two processes, searches on a part of the labels, and states of earlier versions."""

import math

import pytest
import torch
from alcore_gp import GaussianProcess
from alcore_gp.kernels import correlations

from alcore import UsageError

DOUBLE = {"dtype": torch.float64}


def labels(count, quantities=1, seed=0, noise=0.1):
    drawn = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, generator=drawn, **DOUBLE) * 5
    y = torch.stack([x[:, 0] * 2 + torch.sin(x[:, 1] * (1 + t)) + 7 for t in range(quantities)], dim=1)
    return x, y + noise * torch.randn(count, quantities, generator=drawn, **DOUBLE)


def fitted(x, y, **parameters):
    learner = GaussianProcess(**{"starts": 1, "linear": True, **parameters})
    learner.fit_batches([(x, y)], torch.Generator().manual_seed(0))
    return learner


def by_hand(learner, process, x, y, new):
    """Means and covariances without noise of one process at new inputs, in standardized targets, from the formulas."""
    low, span = x.amin(0), x.amax(0) - x.amin(0)
    a, b = (x - low) / span, (new - low) / span
    center = a.mean(0)

    def prior(left, right):
        smooth = correlations("matern", left, right, learner.lengthscale[process : process + 1])[0]
        products = (left - center) @ (right - center).T
        return learner.outputscale[process] * smooth + learner.linear[process] * products

    inverse = torch.linalg.inv(prior(a, a) + learner.noise[process] * torch.eye(len(a), **DOUBLE))
    mean = learner.constant[process] + prior(b, a) @ inverse @ (y - learner.constant[process])
    return mean, prior(b, b) - prior(b, a) @ inverse @ prior(a, b)


def test_mean_variance_and_covariance_are_those_of_the_mixture():
    (x, y), new = labels(25, quantities=2), labels(6, seed=1)[0]
    learner = fitted(x, y)
    assert learner.outputscale[[0, 2]].tolist() == [0, 0], "the first process of a quantity is linear"
    torch.testing.assert_close(learner.share.reshape(2, 2).sum(dim=1), torch.ones(2, **DOUBLE))
    outputs, covariance, variance = (
        learner(new),
        learner.posterior_covariance(new, new),
        learner.posterior_covariance(new),
    )
    for t in range(2):
        scale = y[:, t].std(correction=0)
        z = (y[:, t] - y[:, t].mean()) / scale
        means, covariances = zip(*(by_hand(learner, 2 * t + k, x, z, new) for k in range(2)), strict=True)
        shares, noise = learner.share[2 * t : 2 * t + 2], learner.noise[2 * t : 2 * t + 2]
        mean = sum(share * m for share, m in zip(shares, means, strict=True))
        whole = sum(
            share * (c + torch.outer(m - mean, m - mean))
            for share, m, c in zip(shares, means, covariances, strict=True)
        )
        torch.testing.assert_close(outputs[:, t], mean * scale + y[:, t].mean(), rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(
            outputs[:, 2 + t], (whole.diagonal() + (shares * noise).sum()) * scale**2, rtol=1e-5, atol=1e-7
        )
        torch.testing.assert_close(covariance[t], whole * scale**2, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(variance[t], whole.diagonal() * scale**2, rtol=1e-5, atol=1e-6)


def test_what_is_predicted_for_a_label_from_the_others_is_what_a_fit_without_it_predicts():
    x, y = labels(12)
    learner = fitted(x, y)
    inputs, z = learner.labeled_inputs, learner.labeled_targets
    means, errors, variances = learner._left_out(learner.factor, z)
    for place in range(12):
        others = torch.arange(12) != place
        for process in range(2):
            hyperparameters = {
                "lengthscale": learner.lengthscale[process], "outputscale": learner.outputscale[process],
                "linear": learner.linear[process],
            }  # fmt: skip

            def prior(a, b, own=hyperparameters):
                smooth = correlations("matern", a, b, own["lengthscale"][None])[0]
                products = (a - learner.input_center) @ (b - learner.input_center).T
                return own["outputscale"] * smooth + own["linear"] * products

            whole = prior(inputs[others], inputs[others]) + learner.noise[process] * torch.eye(11, **DOUBLE)
            weights = torch.linalg.solve(whole, prior(inputs[others], inputs[place : place + 1]))[:, 0]
            constant = learner.constant[process]
            mean = constant + weights @ (z[others, 0] - constant)
            own = prior(inputs[place : place + 1], inputs[place : place + 1])[0, 0] + learner.noise[process]
            variance = own - weights @ prior(inputs[others], inputs[place : place + 1])[:, 0]
            assert float(means[process, place]) == pytest.approx(float(mean), rel=1e-6)
            assert float(errors[process, place]) == pytest.approx(float(z[place, 0] - mean), rel=1e-5, abs=1e-9)
            assert float(variances[process, place]) == pytest.approx(float(variance), rel=1e-6)


def test_shares_are_those_of_the_docstring():
    x, y = labels(20)
    learner = fitted(x, y)
    _, errors, variances = learner._left_out(learner.factor, learner.labeled_targets)
    densities = (-0.5 * (errors**2 / variances + variances.log())).mean(dim=1).tolist()
    scores = [math.exp(math.sqrt(20) * (density - p / 20)) for density, p in zip(densities, (3, 3 + 4), strict=True)]
    assert learner.share.tolist() == pytest.approx([score / sum(scores) for score in scores])


def test_linear_functions_are_learned_from_few_labels_of_many_inputs():
    drawn = torch.Generator().manual_seed(0)
    x, new = (torch.rand(n, 15, generator=drawn, **DOUBLE) for n in (30, 200))
    slopes = torch.randn(15, generator=drawn, **DOUBLE)
    y = x @ slopes + 0.3 * torch.randn(30, generator=drawn, **DOUBLE)
    errors = [
        float((fitted(x, y, linear=linear)(new)[:, 0] - new @ slopes).square().mean()) for linear in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_the_search_takes_a_part_of_the_labels_and_predictions_all():
    x, y = labels(120)
    learner = fitted(x, y, search_labels=40)
    assert len(learner.labeled_inputs) == 120
    again, other = fitted(x, y, search_labels=40), GaussianProcess(starts=1, search_labels=40, linear=True)
    other.fit_batches([(x, y)], torch.Generator().manual_seed(1))
    assert torch.equal(learner(x), again(x))
    assert not torch.equal(learner.lengthscale, other.lengthscale), "another seed draws other labels"
    assert float(learner.spread) != 1.0
    assert float(fitted(x, y).spread) == 1.0


def test_variances_are_scaled_so_that_intervals_hold_what_they_say():
    """The noise of most labels that hyperparameters were not searched on is larger."""
    x, y = labels(400, noise=0.0)
    drawn = torch.Generator().manual_seed(5)
    searched = torch.randperm(400, generator=torch.Generator().manual_seed(0))[:60]
    noise = torch.full((400, 1), 1.0, **DOUBLE)
    noise[searched] = 0.3
    y = y + noise * torch.randn(400, 1, generator=drawn, **DOUBLE)
    learner = GaussianProcess(starts=1, search_labels=60)
    learner.fit_batches([(x, y)], torch.Generator().manual_seed(0))
    new, true = labels(2000, seed=9, noise=1.0)
    outputs = learner(new)
    held = ((outputs[:, 0] - true[:, 0]).abs() <= 1.645 * outputs[:, 1].sqrt()).double().mean()
    assert float(learner.spread) > 2
    assert 0.85 < float(held) < 0.95


def test_a_state_of_an_earlier_version_is_taken_back():
    x, y = labels(20, quantities=2)
    learner = fitted(x, y, linear=False)
    state = {
        name: tensor
        for name, tensor in learner.state_dict().items()
        if name not in ("linear", "share", "spread", "input_center")
    }
    other = GaussianProcess()
    other.load_state_dict(state)
    assert torch.equal(other(x), learner(x))
    assert "share" not in state


def test_a_search_without_labels_is_refused():
    with pytest.raises(UsageError, match="search_labels is 0"):
        GaussianProcess(search_labels=0)
