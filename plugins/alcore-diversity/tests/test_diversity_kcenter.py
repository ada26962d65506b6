"""Greedy k-center chooses what the plain algorithm in double precision chooses, whatever it leaves out."""

import pytest
import torch
from alcore_diversity import distances, kcenter, nearest_center
from alcore_diversity.distances import Frame, distinct, exact_squares, quick_squares
from alcore_diversity.kcenter import farthest_first, k_center, nearest_to_mean
from alcore_diversity.nearest_center import NearestCenter, Settled
from hypothesis import given, settings
from hypothesis import strategies as st


def squares_between(left, right):
    """All squared distances, float64 (n, m): the definition."""
    return (left.double()[:, None] - right.double()[None]).square().sum(dim=2)


def plain(features, labeled, n):
    """The O(N (L + k)) algorithm: of the distances to the nearest center take the largest, of equal ones the first."""
    picks, reached = [], []
    near = torch.full((len(features),), torch.inf, dtype=torch.float64)
    if len(labeled):
        near = squares_between(features, labeled).amin(dim=1)
    for _ in range(min(n, len(features))):
        if picks or len(labeled):
            pick = int(near.argmax())
        else:
            mean = features.double().sum(dim=0, keepdim=True) / len(features)
            pick = int(squares_between(features, mean)[:, 0].argmin())
        picks.append(pick)
        reached.append(float(near[pick]) ** 0.5)
        near = torch.minimum(near, squares_between(features, features[pick : pick + 1])[:, 0])
        near[picks] = -1
    return picks, reached


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Bounds, shortlists and blocks so small that a few samples go through every branch."""
    monkeypatch.setattr(kcenter, "_FIRST_CENTERS", 2)
    monkeypatch.setattr(kcenter, "_SOME_CENTERS", 4)
    monkeypatch.setattr(kcenter, "_LOWERED", 4)
    monkeypatch.setattr(kcenter, "_SHORTLIST", 2)
    monkeypatch.setattr(kcenter, "_FEW_PICKS", 2)
    monkeypatch.setattr(distances, "BLOCK", 24)
    monkeypatch.setattr(nearest_center, "BLOCK", 24)


@st.composite
def problems(draw):
    """Features with no ties, with many ties (a lattice), or with duplicates; some labeled; how many to choose."""
    size, labeled, width = draw(st.integers(1, 90)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["normal", "lattice", "copies", "shifted"]))
    rows = torch.randn(size + labeled, width, generator=generator)
    if kind == "lattice":
        rows = torch.randint(-2, 3, rows.shape, generator=generator).float()
    elif kind == "copies":
        rows = rows[torch.randint(0, 5, (len(rows),), generator=generator) % len(rows)]
    elif kind == "shifted":
        rows = rows * 1e-2 + 1e3  # single precision keeps little of what tells these apart
    return rows[:size], rows[size:], draw(st.integers(1, size + 2))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_k_center_chooses_as_the_plain_algorithm(problem):
    features, labeled, n = problem
    positions, reached = k_center(features, labeled, n)
    expected, expected_reached = plain(features, labeled, n)
    assert positions.tolist() == expected
    assert reached.tolist() == pytest.approx(expected_reached, rel=1e-12, abs=0)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 6))
def test_kept_bounds_change_nothing(problem, n):
    """Rounds that go on from what is known choose as rounds that begin anew."""
    features, labeled, _ = problem
    ids = torch.arange(len(features))
    near = NearestCenter(features, labeled)
    for _ in range(4):
        expected, _ = k_center(features[ids], labeled, n)
        positions, _ = farthest_first(near, n)
        assert positions.tolist() == ids[expected].tolist()
        labeled = torch.cat([labeled, features[positions]])
        left = torch.ones(len(ids), dtype=torch.bool)
        left[expected] = False
        ids = ids[left]
        if len(ids) > 3:  # one that others chose
            other = ids[3]
            ids = ids[ids != other]
            near.bound[other] = -1
            near.add(features[other][None])
            labeled = torch.cat([labeled, features[other][None]])
        near.add(labeled[:1])  # one that is known already does no harm


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-3, 1e18, 1e37])
def test_tiny_and_huge_values(scale):
    generator = torch.Generator().manual_seed(3)
    features = torch.randint(-9, 10, (60, 3), generator=generator).float()
    expected, _ = plain(features * scale, features[:2] * scale, 12)
    positions, reached = k_center(features * scale, features[:2] * scale, 12)
    assert positions.tolist() == expected
    assert bool(torch.isfinite(reached).all())
    assert reached[0] > 0


def test_all_features_equal():
    features = torch.full((7, 3), 0.1)
    for labeled in (features[:0], features[:2]):
        positions, reached = k_center(features, labeled, 4)
        assert positions.tolist() == [0, 1, 2, 3]
        assert reached[1:].tolist() == [0, 0, 0]


def test_one_sample_and_none():
    assert k_center(torch.ones(1, 2), torch.ones(0, 2), 5)[0].tolist() == [0]
    assert k_center(torch.zeros(1, 2), torch.ones(3, 2), 1)[1].tolist() == pytest.approx([2**0.5])
    assert k_center(torch.ones(0, 2), torch.ones(3, 2), 5)[0].tolist() == []
    assert k_center(torch.ones(4, 2), torch.ones(3, 2), 0)[0].tolist() == []


def test_copies_of_labeled_samples_come_last():
    labeled = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) + 100
    features = torch.cat([labeled, labeled + 1e-4])
    positions, reached = k_center(features, labeled, 10)
    assert sorted(positions[:5].tolist()) == [5, 6, 7, 8, 9]
    assert reached[5:].tolist() == [0] * 5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), width=st.sampled_from([1, 3, 64, 700]), shift=st.sampled_from([0.0, 10.0, 1e4]))
def test_quick_distances_are_within_their_error(seed, width, shift):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(9, width, generator=generator) * 10 ** torch.randn(9, 1, generator=generator) + shift
    right = torch.randn(5, width, generator=generator) + shift
    frame = Frame(left, right)
    (x, norms), (y, others) = frame.scaled(left), frame.scaled(right)
    quick = frame.from_placed(quick_squares(x, norms, y, others))
    error = frame.from_placed(frame.error(norms, float(others.max())))
    assert bool(((quick - squares_between(left, right)).abs() <= error[:, None]).all())


def test_the_nearest_of_centers_that_single_precision_cannot_tell_apart():
    around = torch.nn.functional.normalize(torch.randn(300, 40, generator=torch.Generator().manual_seed(2)))
    for seed in range(10):
        feature = torch.randn(1, 40, generator=torch.Generator().manual_seed(seed))
        centers = feature + 3 * around
        settled = Settled(Frame(centers), feature, torch.full((1,), torch.inf, dtype=torch.float64))
        settled.lower(centers)
        assert settled.values == squares_between(feature, centers).amin()


def test_exact_distances_do_not_depend_on_what_stands_beside_them():
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(400, 37, generator=generator), torch.randn(1, 37, generator=generator)
    whole = exact_squares(left, right)
    for rows in ([0], [3, 8], list(range(100, 117)), list(range(399))):
        assert torch.equal(exact_squares(left[rows], right), whole[rows])
    assert exact_squares(left, left).count_nonzero() == 0


def test_distinct_rows():
    rows = torch.tensor([[1.0, 2], [0, 0], [1, 2], [3, 1], [0, 0]])
    assert distinct(rows).tolist() == [0, 1, 3]
    assert distinct(rows[:1]).tolist() == [0]
    assert distinct(rows[:0]).tolist() == []


def test_the_mean_of_many_blocks():
    features = torch.tensor([[0.0, 0], [4, 0], [0, 4], [4, 4], [2, 2], [2, 2], [9, 9]])
    assert nearest_to_mean(features[:6]) == 4
    assert nearest_to_mean(features[:4]) == 0


def test_a_long_search_can_be_ended():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        k_center(torch.randn(50, 2), torch.zeros(1, 2), 5, stop)
