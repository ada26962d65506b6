"""ProbCover covers greedily what balls hold, exactly, and finds the radius at which balls are pure."""

import math

import pytest
import torch
from alcore_diversity import distances, probcover, radius_graph
from alcore_diversity.probcover import prob_cover, pure_radius
from hypothesis import given, settings
from hypothesis import strategies as st


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def squares_between(left, right):
    return (left.double()[:, None] - right.double()[None]).square().sum(dim=2)


def plain(features, labeled, radius, n):
    """Picks that cover something anew, and how much, by the whole matrix of who is within whose ball."""
    holds = squares_between(features, features) <= radius * radius
    open_ = ~(squares_between(features, labeled) <= radius * radius).any(dim=1)
    picks, gains = [], []
    while len(picks) < min(n, len(features)):
        counts = (holds & open_).sum(dim=1)
        counts[picks] = 0
        pick = int(counts.argmax())
        if not counts[pick]:
            break
        picks.append(pick)
        gains.append(int(counts[pick]))
        open_ &= ~holds[pick]
    return picks, gains


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for module in (distances, probcover, radius_graph):
        monkeypatch.setattr(module, "BLOCK", 49)


@st.composite
def problems(draw):
    size, labeled, width = draw(st.integers(1, 40)), draw(st.integers(0, 6)), draw(st.integers(1, 3))
    rows = torch.randn(size + labeled, width, generator=seeded(draw(st.integers(0, 2**16))))
    if draw(st.booleans()):
        rows = rows.mul(1.5).round()  # a lattice: many samples lie on the surface of a ball
    radius = draw(st.sampled_from([0.0, 0.4, 1.0, math.sqrt(2), 2.0, 9.0]))
    return rows[:size] + 100, rows[size:] + 100, radius, draw(st.integers(1, size + 2))


@settings(max_examples=50, deadline=None)
@given(problems())
def test_prob_cover_covers_as_the_plain_algorithm(problem):
    features, labeled, radius, n = problem
    positions, gains = prob_cover(features, labeled, radius, n, seeded(0))
    picks, expected = plain(features, labeled, radius, n)
    assert positions[: len(picks)].tolist() == picks
    assert gains.tolist() == expected + [0] * (len(positions) - len(picks))
    assert len(set(positions.tolist())) == len(positions) == min(n, len(features))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.integers(1, 40), kinds=st.integers(1, 4),
       purity=st.sampled_from([0.5, 0.9, 1.0]), lattice=st.booleans())  # fmt: skip
def test_the_radius_is_the_largest_at_which_balls_are_pure(seed, size, kinds, purity, lattice):
    features = torch.randn(size, 2, generator=seeded(seed))
    features = features.mul(3).round() if lattice else features
    clusters = torch.randint(0, kinds, (size,), generator=seeded(seed + 1))
    between = squares_between(features, features).sqrt()
    between[clusters[:, None] == clusters] = torch.inf

    def pure(radius):
        return float((between > min(radius, 1e9)).all(dim=1).double().mean())

    radius = pure_radius(features, clusters, purity, seeded(0))
    assert pure(radius) >= purity or radius == 0
    if radius < math.inf and radius > 0:
        assert pure(radius * (1 + 1e-9)) < purity
    if radius == 0:
        assert pure(1e-9) < purity  # what lies at one place belongs to several clusters


def test_few_of_many_samples_tell_the_radius(monkeypatch):
    monkeypatch.setattr(probcover, "_ANCHORS", 200)
    features = torch.randn(2000, 2, generator=seeded(1))
    clusters = (features[:, 0] > 0).long()
    some = pure_radius(features, clusters, 0.9, seeded(0))
    monkeypatch.setattr(probcover, "_ANCHORS", 2000)
    assert some == pytest.approx(pure_radius(features, clusters, 0.9, seeded(0)), rel=0.5)
    assert some == pure_radius_of_first(features, clusters)


def pure_radius_of_first(features, clusters):
    anchors = torch.randperm(2000, generator=seeded(0))[:200]
    between = squares_between(features[anchors], features)
    between[clusters[anchors][:, None] == clusters] = torch.inf
    return float(between.amin(dim=1).sort().values[20].sqrt()) * (1 - 2**-40)


def test_once_all_is_covered_the_rest_is_uniform():
    features = torch.full((9, 2), 0.3)
    seen = set()
    for seed in range(40):
        positions, gains = prob_cover(features, features[:0], 1.0, 4, seeded(seed))
        assert positions[0] == 0
        assert gains.tolist() == [9, 0, 0, 0]
        seen |= set(positions[1:].tolist())
    assert seen == set(range(1, 9))


@pytest.mark.parametrize("scale", [1e-40, 1e37])
def test_tiny_and_huge_values(scale):
    features = torch.randn(30, 2, generator=seeded(7)).mul(4).round() * scale
    positions, _ = prob_cover(features, features[:0], 5 * scale, 6, seeded(0))
    assert positions[:3].tolist() == plain(features, features[:0], 5 * scale, 3)[0]


def test_infinite_radius_one_sample_and_none():
    features = torch.randn(5, 2, generator=seeded(0))
    assert prob_cover(features, features[:0], math.inf, 1, seeded(0))[0].tolist() == [0]
    assert prob_cover(features[:1], features[:0], 0.0, 4, seeded(0))[0].tolist() == [0]
    assert prob_cover(features[:0], features, 1.0, 4, seeded(0))[0].tolist() == []
    assert prob_cover(features, features, 1.0, 0, seeded(0))[0].tolist() == []
    assert pure_radius(features, torch.zeros(5, dtype=torch.int64), 0.95, seeded(0)) == math.inf
    assert pure_radius(features[:0], torch.zeros(0, dtype=torch.int64), 0.95, seeded(0)) == math.inf
