"""Mean and variance of predictions: mixtures by their definition, whatever the learner; the loss that trains them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import UsageError
from alcore.outputs import default_loss, halves, kind_of, mean_and_variance, means_of, positive_variance


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 4), rows=st.integers(1, 5), quantities=st.integers(1, 3), seed=st.integers(0, 999))
def test_mixture_has_the_moments_of_its_parts(k, rows, quantities, seed):
    outputs = drawn(k, rows, 2 * quantities, seed=seed)
    moments = mean_and_variance(outputs, "mean-variance")
    means, variances = outputs[..., :quantities], outputs[..., quantities:]
    mean = means.mean(dim=0)
    second = (variances + means.square()).mean(dim=0)  # E[y^2] of the mixture
    torch.testing.assert_close(moments.mean, mean)
    torch.testing.assert_close(moments.variance, second - mean.square())
    torch.testing.assert_close(moments.noise, variances.mean(dim=0))
    of_values = mean_and_variance(means, "values")
    torch.testing.assert_close(of_values.variance, moments.model)
    assert of_values.noise is None


def test_one_model_says_that_all_its_variance_is_noise():
    for shape in ((5, 2), (5, 6), (5, 4, 3, 3)):
        outputs = drawn(*shape)
        moments = mean_and_variance(outputs.float(), "mean-variance")
        half = shape[1] // 2
        torch.testing.assert_close(moments.mean, outputs[:, :half].float().double())
        torch.testing.assert_close(moments.variance, outputs[:, half:].float().double())
        assert moments.model is None
        assert torch.equal(means_of(outputs, "mean-variance"), outputs[:, :half])
    assert means_of(outputs, "values") is outputs


@pytest.mark.parametrize("shape", [(5,), (5, 3), (4, 5, 1), (5, 3, 2, 2), (5, 0)])
def test_outputs_without_two_halves_are_refused(shape):
    with pytest.raises(UsageError, match="means and then variances"):
        halves(torch.rand(shape))


def test_single_values_have_no_variance():
    with pytest.raises(UsageError, match=r"\(5, 1\) are one value a quantity"):
        mean_and_variance(torch.rand(5, 1), "values")


def test_kinds_belong_to_tasks():
    one = torch.nn.Identity()
    assert (kind_of(one), kind_of(one, "regression")) == ("logits", "values")
    one.outputs = "mean-variance"
    assert kind_of(one, "regression") == "mean-variance"
    with pytest.raises(UsageError, match="'mean-variance', which is for a regression"):
        kind_of(one)
    one.outputs = "variance"
    with pytest.raises(UsageError, match="must be 'logits' or 'probabilities', and for a regression"):
        kind_of(one, "regression")


@pytest.mark.parametrize("shape", [(6, 2), (6, 8), (6, 4, 2, 3)])
def test_default_loss_is_the_negative_log_likelihood(shape):
    outputs, targets = drawn(*shape), drawn(shape[0], shape[1] // 2, *shape[2:], seed=1)
    loss = default_loss("regression", "mean-variance")(lambda inputs: inputs, (outputs, targets))
    mean, variance = outputs.chunk(2, dim=1)
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(targets).mean()
    torch.testing.assert_close(loss + torch.log(torch.tensor(2 * torch.pi)) / 2, expected)


def test_variance_of_a_network_is_above_its_floor():
    raw = torch.tensor([-1e4, -30.0, 0.0, 50.0])
    assert positive_variance(raw, 1e-3).tolist() == pytest.approx([1e-3, 1e-3, 0.6931472 + 1e-3, 50.001], rel=1e-6)
