"""Every measure against plain loops in double precision, and what it does at the edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alcore.errors import UsageError
from alcore.outputs import posterior as posterior_module
from alcore.outputs.posterior import (
    bald,
    expected_entropy,
    mean_std,
    posterior_probabilities,
    variation_ratio,
    vote_entropy,
)
from alcore.outputs.uncertainty import entropy as predictive_entropy


def variation_of_mean(outputs, kind="logits", **options):
    return variation_ratio(outputs, kind, "mean", **options)


MEASURES = {
    "bald": bald,
    "expected_entropy": expected_entropy,
    "mean_std": mean_std,
    "variation_ratio": variation_ratio,
    "variation_of_mean": variation_of_mean,
    "vote_entropy": vote_entropy,
}
BY_TOP = sorted(set(MEASURES) - {"vote_entropy", "variation_ratio"})
every_measure = pytest.mark.parametrize("name", sorted(MEASURES))


def entropy(p):
    return -sum(share * math.log(share) for share in p if share > 0)


def brute(p, name):
    """Score one sample from its probabilities: K lists of C numbers."""
    members, classes = len(p), len(p[0])
    mean = [math.fsum(member[c] for member in p) / members for c in range(classes)]
    votes = [0] * classes
    for member in p:
        best = max(range(classes), key=lambda c: (member[c], -c))
        votes[best] += 1
    if name == "bald":
        return entropy(mean) - math.fsum(map(entropy, p)) / members
    if name == "expected_entropy":
        return math.fsum(map(entropy, p)) / members
    if name == "mean_std":
        spread = [math.fsum((member[c] - mean[c]) ** 2 for member in p) / members for c in range(classes)]
        return math.fsum(map(math.sqrt, spread)) / classes
    if name == "variation_ratio":
        return 1 - max(votes) / members
    if name == "variation_of_mean":
        return 1 - max(mean)
    return entropy([count / members for count in votes])


def brute_all(p, name):
    """Score all samples from probabilities (K, B, C)."""
    return [brute(p[:, place].tolist(), name) for place in range(p.shape[1])]


# Differences that a probability would round away would be votes that the loops can't see
NUMBERS = st.floats(-30, 30).map(lambda number: round(number, 6))


def logits(classes, elements=NUMBERS):
    shape = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(*classes))
    return shape.flatmap(lambda size: hnp.arrays(np.float64, size, elements=elements))


@every_measure
@settings(deadline=None, max_examples=15)
@given(values=logits((2, 5)))
def test_logits_against_loops(name, values):
    outputs = torch.from_numpy(values)
    expected = brute_all(torch.softmax(outputs, dim=2), name)
    scores = MEASURES[name](outputs)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9, atol=1e-12)


@every_measure
@settings(deadline=None, max_examples=15)
@given(values=logits((2, 5), st.sampled_from([0.0, 1.0, 1.0, 2.0, 5.0])))
def test_probabilities_against_loops_with_zeros_and_ties(name, values):
    p = torch.from_numpy(values)
    p[:, :, 0] += (p.sum(dim=2) == 0).double()
    p /= p.sum(dim=2, keepdim=True)
    np.testing.assert_allclose(MEASURES[name](p, "probabilities").numpy(), brute_all(p, name), rtol=1e-9, atol=1e-12)


@every_measure
@pytest.mark.parametrize("column", [False, True], ids=["(K, B)", "(K, B, 1)"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@settings(deadline=None, max_examples=10)
@given(values=logits((1, 1)))
def test_one_output_column_is_two_classes(name, column, kind, values):
    outputs = torch.from_numpy(values)[:, :, 0]
    positive = torch.sigmoid(outputs)
    # The positive class first, since it has the vote of an even prediction
    two = torch.stack([positive, 1 - positive if kind == "probabilities" else torch.sigmoid(-outputs)], dim=2)
    given_ = positive if kind == "probabilities" else outputs
    scores = MEASURES[name](given_[:, :, None] if column else given_, kind)
    np.testing.assert_allclose(scores.numpy(), brute_all(two, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@every_measure
def test_single_and_half_precision_are_scored_in_double(name, dtype):
    outputs = (3 * torch.randn(7, 50, 4, generator=torch.Generator().manual_seed(1))).to(dtype)
    expected = brute_all(torch.softmax(outputs.double(), dim=2), name)
    np.testing.assert_allclose(MEASURES[name](outputs).numpy(), expected, rtol=0, atol=1e-13)


def test_bald_is_the_mean_divergence_from_the_mean():
    p = torch.randn(5, 40, 3, generator=torch.Generator().manual_seed(2)).double().softmax(dim=2)
    divergence = (p * (p / p.mean(dim=0)).log()).sum(dim=2).mean(dim=0)
    torch.testing.assert_close(bald(p, "probabilities"), divergence)


def test_disagreement_is_told_from_noise():
    noise = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]])
    disagreement = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    both = torch.cat([noise, disagreement], dim=1)
    assert bald(both, "probabilities").tolist() == pytest.approx([0, math.log(2)])
    assert predictive_entropy(both, "probabilities").tolist() == pytest.approx([math.log(2)] * 2)
    assert mean_std(both, "probabilities").tolist() == pytest.approx([0, 0.5])


# -- single precision as a sieve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_TOP)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-4, 1e-2, 1.0, 5.0, 40.0]),
    classes=st.integers(1, 6),
    top=st.integers(0, 60),
)
def test_the_highest_are_those_of_double_precision(name, kind, seed, scale, classes, top):
    draw = torch.Generator().manual_seed(seed)
    common = 3 * torch.randn(1, 300, classes, generator=draw)
    outputs = common + scale * torch.randn(
        4, 300, classes, generator=draw
    )  # at small scales, single precision is blind
    if kind == "probabilities":
        outputs = outputs.softmax(dim=2) if classes > 1 else outputs.sigmoid()
    exact, sieved = MEASURES[name](outputs, kind), MEASURES[name](outputs, kind, top=top)
    order = exact.argsort(descending=True, stable=True)[:top]
    assert torch.equal(sieved.argsort(descending=True, stable=True)[:top], order)
    assert torch.equal(sieved[order], exact[order])
    np.testing.assert_allclose(sieved.numpy(), exact.numpy(), rtol=0, atol=2e-4)


def test_single_precision_alone_would_pick_others():
    outputs = 1e-4 * torch.randn(8, 4000, 5, generator=torch.Generator().manual_seed(3))
    exact = bald(outputs).argsort(descending=True, stable=True)[:50]
    p = torch.softmax(outputs, dim=2)
    mean = p.mean(dim=0)
    naive = -(mean * mean.log()).sum(dim=1) + (p * p.log()).sum(dim=2).mean(dim=0)
    assert not torch.equal(naive.argsort(descending=True, stable=True)[:50], exact)
    assert torch.equal(bald(outputs, top=50).argsort(descending=True, stable=True)[:50], exact)


@pytest.mark.parametrize("name", BY_TOP)
def test_logits_that_single_precision_would_round_are_scored_in_double(name):
    outputs = 1e8 + 5 * torch.randn(4, 300, 3, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    exact = MEASURES[name](outputs)
    assert torch.equal(MEASURES[name](outputs, top=20), exact)


# -- the same sample, the same score -----------------------------------------------------------------------------------


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("class_major", [False, True])
def test_equal_samples_have_equal_scores_wherever_they_stand(name, kind, class_major):
    row = torch.randn(20, 1, 10, generator=torch.Generator().manual_seed(4))
    row = row.softmax(dim=2) if kind == "probabilities" else row
    for n in (1, 7, 65, 1500):
        outputs = row.expand(-1, n, -1).contiguous()
        if class_major:
            outputs = outputs.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        assert len(MEASURES[name](outputs, kind).unique()) == 1, n


@every_measure
def test_blocks_make_no_difference(name, monkeypatch):
    outputs = 2 * torch.randn(6, 1000, 7, generator=torch.Generator().manual_seed(5))
    whole = MEASURES[name](outputs)
    monkeypatch.setattr(posterior_module, "_BLOCK", 1)
    torch.testing.assert_close(MEASURES[name](outputs), whole, rtol=1e-12, atol=1e-14)


def test_models_that_agree_tie_at_zero():
    outputs = torch.randn(1, 500, 10, generator=torch.Generator().manual_seed(6)).expand(7, -1, -1)
    assert bald(outputs).tolist() == [0.0] * 500
    assert bald(outputs.softmax(dim=2), "probabilities").tolist() == [0.0] * 500


# -- the edges ---------------------------------------------------------------------------------------------------------


@every_measure
@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 0, 1), (3, 0)])
def test_measures_of_no_samples_are_empty(name, shape):
    assert MEASURES[name](torch.zeros(shape)).shape == (0,)


@every_measure
def test_one_posterior_sample(name):
    outputs = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(7))
    expected = brute_all(torch.softmax(outputs.double(), dim=2), name)
    np.testing.assert_allclose(MEASURES[name](outputs).numpy(), expected, atol=1e-12)


@every_measure
def test_huge_and_infinite_logits(name):
    large = torch.tensor([[[1e30, -1e30, 0.0]], [[-1e30, 1e30, 0.0]]])
    expected = brute_all(torch.tensor([[[1.0, 0, 0]], [[0.0, 1, 0]]]), name)
    assert MEASURES[name](large).tolist() == pytest.approx(expected)
    large[0, 0, 1] = large[1, 0, 0] = -torch.inf
    assert MEASURES[name](large).tolist() == pytest.approx(expected)


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("top", [None, 1])
def test_a_nan_is_never_lost(name, kind, place, top):
    options = {} if top is None or name == "vote_entropy" else {"top": top}
    outputs = torch.full((4, 3, 3), 1 / 3)
    outputs[2, 1, place] = torch.nan
    assert MEASURES[name](outputs, kind, **options).isnan().tolist() == [False, True, False]
    assert MEASURES[name](outputs[:, :, place], kind, **options).isnan().tolist() == [False, True, False]


@every_measure
@pytest.mark.parametrize(
    "outputs", [torch.tensor(0.5), torch.zeros(3), torch.zeros(2, 2, 2, 2), torch.ones(2, 2, 2).long(), {"logits": 1}]
)
def test_other_outputs_than_posterior_samples_are_refused(name, outputs):
    with pytest.raises(UsageError, match=r"the learner returned a|not posterior samples"):
        MEASURES[name](outputs)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0)])
def test_no_posterior_sample_or_no_class_is_refused(shape):
    with pytest.raises(UsageError, match="have no sample"):
        bald(torch.zeros(shape))


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_the_outputs_are_left_alone(name, kind):
    outputs = torch.rand(5, 70, 4, generator=torch.Generator().manual_seed(8))
    before = outputs.clone()
    MEASURES[name](outputs, kind)
    for dtype in (torch.float32, torch.float64):
        posterior_probabilities(outputs.to(dtype), kind)
    assert torch.equal(outputs, before)


def test_probabilities_of_each_posterior_sample():
    outputs = torch.randn(3, 200, 4, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(posterior_probabilities(outputs), outputs.softmax(dim=2))
    assert posterior_probabilities(outputs.double()).dtype == torch.float64
    assert posterior_probabilities(outputs.half()).dtype == torch.float32
    positive = torch.sigmoid(outputs[:, :, 0])
    torch.testing.assert_close(posterior_probabilities(outputs[:, :, 0]), torch.stack([1 - positive, positive], dim=2))
    torch.testing.assert_close(
        posterior_probabilities(positive[:, :, None], "probabilities"), torch.stack([1 - positive, positive], dim=2)
    )
