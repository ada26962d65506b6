"""Noise that turns scores into a random batch."""

import itertools
import math

import numpy as np
import pytest
import torch
from alcore_bayes import perturb

SCORES = torch.tensor([0.05, 0.4, 0.1, 0.2])
CHI_SQUARE_3, CHI_SQUARE_11 = 16.27, 31.26  # 99.9 % quantiles: exceeded for 1 seed in 1000, and the seed is fixed


def weights(noise, beta):
    scores = SCORES.double()
    if noise == "power":
        return scores**beta
    if noise == "softmax":
        return torch.exp(beta * scores)
    return torch.tensor([4.0, 1.0, 3.0, 2.0], dtype=torch.float64) ** -beta


def draws(noise, beta, count):
    """Return the order of the perturbed scores, `count` times."""
    generator = torch.Generator().manual_seed(3)
    return [perturb(SCORES, generator, noise, beta).argsort(descending=True).tolist() for _ in range(count)]


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("noise", ["power", "softmax", "softrank"])
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_batch_is_drawn_without_replacement_with_these_probabilities(noise, beta):
    p = (weights(noise, beta) / weights(noise, beta).sum()).numpy()
    orders = draws(noise, beta, 4000)
    first = np.bincount([order[0] for order in orders], minlength=4)
    assert chi_square(first, 4000 * p) < CHI_SQUARE_3
    pairs = list(itertools.permutations(range(4), 2))
    counts = np.array([sum(order[:2] == [a, b] for order in orders) for a, b in pairs])
    expected = np.array([p[a] * p[b] / (1 - p[a]) for a, b in pairs])
    assert chi_square(counts, 4000 * expected) < CHI_SQUARE_11


def test_one_number_a_score_in_their_order():
    """Scores may come in chunks of any size."""
    scores = torch.rand(500, generator=torch.Generator().manual_seed(1))
    whole = perturb(scores, torch.Generator().manual_seed(2))
    for size in (1, 7, 16, 499):
        generator = torch.Generator().manual_seed(2)
        assert torch.equal(torch.cat([perturb(part, generator) for part in scores.split(size)]), whole)


def test_the_noise_is_standard_gumbel():
    noise = perturb(torch.ones(200_000), torch.Generator().manual_seed(4))
    assert noise.mean().item() == pytest.approx(0.5772156649, abs=0.015)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize("noise", ["power", "softmax", "softrank"])
def test_a_large_beta_keeps_the_order(noise):
    assert perturb(SCORES, torch.Generator().manual_seed(5), noise, 1e9).argsort(descending=True).tolist() == [
        1,
        3,
        2,
        0,
    ]


def test_scores_of_zero_come_last_in_random_order():
    scores = torch.tensor([0.0] * 5 + [1e-9] + [0.0] * 5)
    orders = {
        tuple(perturb(scores, torch.Generator().manual_seed(seed)).argsort(descending=True).tolist())
        for seed in range(20)
    }
    assert {order[0] for order in orders} == {5}
    assert len({order[1] for order in orders}) > 3


def test_equal_scores_rank_by_position():
    ranked = perturb(torch.full((6,), 0.3), torch.Generator().manual_seed(6), "softrank", 1e9)
    assert ranked.argsort(descending=True).tolist() == list(range(6))


@pytest.mark.parametrize("noise", ["power", "softmax", "softrank"])
def test_nan_stays_nan(noise):
    scores = torch.tensor([0.1, torch.nan, 0.3])
    assert perturb(scores, torch.Generator(), noise).isnan().tolist() == [False, True, False]
    assert perturb(torch.zeros(0), torch.Generator(), noise).tolist() == []


def test_scores_are_left_alone():
    scores = SCORES.double()
    perturb(scores, torch.Generator())
    assert torch.equal(scores, SCORES.double())
