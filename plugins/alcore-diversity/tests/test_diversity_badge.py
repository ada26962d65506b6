"""BADGE: factorized distances are those of written-out gradients, and draws follow k-means++."""

import itertools

import numpy as np
import pytest
import torch
from alcore_diversity import badge as module
from alcore_diversity import distances
from alcore_diversity.badge import Gradients, badge
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore.outputs import class_probabilities

CHI_SQUARE_19 = 43.82  # the 99.9 % quantile: exceeded for 1 seed in 1000, and the seeds are fixed


def written_out(features, probabilities):
    """Gradients as they are, float64 (N, C D)."""
    errors = probabilities.double().clone()
    errors[torch.arange(len(errors)), probabilities.argmax(dim=1)] -= 1
    return (errors[:, :, None] * features.double()[:, None, :]).flatten(1)


def draws(size, width, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size, width, generator=generator)
    return features, torch.randn(size, classes, generator=generator).double().mul(2).softmax(dim=1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 30), width=st.integers(1, 9), classes=st.integers(2, 5), seed=st.integers(0, 2**16))
def test_distances_are_those_of_written_out_gradients(size, width, classes, seed):
    features, probabilities = draws(size, width, classes, seed)
    features = torch.cat([features, features[:1]])  # a copy
    probabilities = torch.cat([probabilities, probabilities[:1]])
    gradients, whole = Gradients(features, probabilities), written_out(features, probabilities)
    unit = float(gradients.squares[0] / whole[0].square().sum())
    expected = (whole[:, None] - whole[None]).square().sum(dim=2) * unit
    rows = torch.arange(0, size + 1, 2)
    torch.testing.assert_close(gradients.to(rows), expected[:, rows], rtol=1e-9, atol=1e-13 * float(expected.max()))
    torch.testing.assert_close(gradients.squares, whole.square().sum(dim=1) * unit, rtol=1e-10, atol=0)
    assert gradients.to(torch.tensor([0]), slice(size, None)).item() == 0


def test_errors_of_certain_predictions_keep_their_digits():
    logits = torch.tensor([[60.0, 0], [50, 0], [0, 0]], dtype=torch.float64)
    gradients = Gradients(torch.ones(3, 1), logits.softmax(dim=1))
    certain = torch.sigmoid(-logits[:, 0])
    torch.testing.assert_close(gradients.squares, 2 * certain.square() / 4, rtol=1e-12, atol=0)


@pytest.mark.parametrize("proposals", [2, 256])
def test_draws_follow_the_squared_distances(monkeypatch, proposals):
    """However few are proposed at once: 1200 ordered pairs after the first pick, against exact probabilities."""
    monkeypatch.setattr(module, "_PROPOSALS", proposals)
    features, probabilities = draws(6, 3, 3, 30)
    whole = written_out(features, probabilities)
    squares = (whole[:, None] - whole[None]).square().sum(dim=2).numpy()
    first = int(whole.square().sum(dim=1).argmax())
    others = [sample for sample in range(6) if sample != first]
    expected = {}
    for second, third in itertools.permutations(others, 2):
        after = np.minimum(squares[first], squares[second])
        expected[second, third] = squares[first, second] / squares[first].sum() * after[third] / after.sum()
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    for seed in range(1200):
        positions, _ = badge(features, probabilities, 3, seeded(seed))
        assert int(positions[0]) == first
        counts[tuple(positions[1:].tolist())] += 1
    statistic = sum((counts[pair] - 1200 * p) ** 2 / (1200 * p) for pair, p in expected.items())
    assert min(expected.values()) * 1200 > 5
    assert statistic < CHI_SQUARE_19


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), n=st.integers(1, 50), kinds=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_badge_chooses_each_sample_once_with_distances_as_scores(size, n, kinds, seed):
    features, probabilities = draws(kinds, 4, 3, seed)
    rows = torch.randint(0, kinds, (size,), generator=seeded(seed))
    features, probabilities = features[rows], probabilities[rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 16)
        positions, squares = badge(features, probabilities, n, seeded(seed))
    chosen = positions.tolist()
    assert len(chosen) == len(set(chosen)) == min(n, size)
    whole = written_out(features, probabilities)
    unit = float(squares[0] / whole[chosen[0]].square().sum())
    for place in range(1, len(chosen)):
        nearest = (whole[chosen[:place]] - whole[chosen[place]]).square().sum(dim=1).min() * unit
        assert float(squares[place]) == pytest.approx(float(nearest), rel=1e-8, abs=1e-12)
    distinct = len(torch.unique(rows))
    assert squares[:distinct].all()  # copies come last
    assert not squares[distinct:].any()


def test_copies_come_last_whatever_products_round_to():
    features, probabilities = draws(50, 130, 9, 3)
    rows = torch.arange(300) % 50
    positions, squares = badge(features[rows] + 10, probabilities[rows], 80, seeded(0))
    assert len(rows[positions[:50]].unique()) == 50
    assert squares[:50].all()
    assert not squares[50:].any()


@pytest.mark.parametrize(
    ("features", "probabilities"),
    [
        (torch.zeros(9, 3), torch.full((9, 2), 0.5)),  # zero vectors
        (torch.full((9, 3), 0.1), torch.full((9, 2), 0.5)),  # all equal
        (torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0]] * 9)),  # all certain
    ],
)
def test_without_differences_the_rest_is_uniform(features, probabilities):
    seen = set()
    for seed in range(25):
        positions, squares = badge(features, probabilities, 4, seeded(seed))
        assert positions[0] == 0
        assert not squares[1:].any()
        seen |= set(positions[1:].tolist())
    assert seen == set(range(1, 9))


@pytest.mark.parametrize("scale", [1e-40, 1e30, 3e38])
def test_tiny_and_huge_features(scale):
    features, probabilities = draws(30, 4, 3, 1)
    features /= features.abs().max()
    expected, _ = badge(features, probabilities, 8, seeded(2))
    positions, squares = badge(features * scale, probabilities, 8, seeded(2))
    assert bool(squares.isfinite().all())
    assert bool((squares > 0).all())
    if scale > 1:  # the smallest numbers lose digits
        assert positions.tolist() == expected.tolist()


def test_one_sample_and_none():
    assert badge(torch.ones(1, 2), torch.ones(1, 2) / 2, 3, seeded(0))[0].tolist() == [0]
    assert badge(torch.ones(0, 2), torch.ones(0, 2), 3, seeded(0))[0].tolist() == []
    assert badge(torch.ones(4, 2), torch.ones(4, 2) / 2, 0, seeded(0))[0].tolist() == []


def test_one_output_column_counts_as_two_classes():
    logits = torch.randn(20, 1, generator=seeded(3))
    features = torch.randn(20, 3, generator=seeded(4))
    two = class_probabilities(torch.cat([torch.zeros_like(logits), logits], dim=1).double(), "logits")
    one = class_probabilities(logits.double(), "logits")
    assert badge(features, one, 6, seeded(0))[0].tolist() == badge(features, two, 6, seeded(0))[0].tolist()
