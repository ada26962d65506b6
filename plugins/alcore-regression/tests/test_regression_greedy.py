"""Greedy sampling against loops over everything."""

import math
from fractions import Fraction

import pytest
import torch
from alcore_regression import greedy, gsx, gsy, igs
from hypothesis import given, settings
from hypothesis import strategies as st


def slow(spaces, n):
    """Positions and scores by the definition: the first of the largest least products of distances."""
    rows = [row.tolist() for row, _ in spaces]
    anchors = [list(zip(*(part.tolist() for _, part in spaces), strict=True))][0]
    positions, scores = [], []
    while len(positions) < min(n, len(rows[0])):
        best, score = None, -math.inf
        for i in range(len(rows[0])):
            if i in positions:
                continue
            least = min(
                math.prod(math.dist(row[i], part) for row, part in zip(rows, parts, strict=True)) for parts in anchors
            )
            if least > score:
                best, score = i, least
        positions.append(best)
        scores.append(score)
        anchors.append(tuple(row[best] for row in rows))
    return positions, scores


def whole_numbers(rows, columns, high=4):
    """A matrix of small whole numbers: distances are exact then, so that ties are."""
    return st.lists(
        st.lists(st.integers(-high, high), min_size=columns, max_size=columns), min_size=rows, max_size=rows
    ).map(lambda values: torch.tensor(values, dtype=torch.float32).reshape(rows, columns))


@st.composite
def problems(draw):
    size, labels = draw(st.integers(1, 24)), draw(st.integers(1, 9))
    columns, quantities = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return {
        "features": draw(whole_numbers(size, columns)),
        "predictions": draw(whole_numbers(size, quantities, 2)),
        "labeled": draw(whole_numbers(labels, columns)),
        "targets": draw(whole_numbers(labels, quantities, 2)),
        "n": draw(st.integers(0, 30)),
    }


@pytest.fixture(autouse=True, params=[1024, 3], ids=["one block", "blocks of 3"])
def block(request, monkeypatch):
    monkeypatch.setattr(greedy, "_BLOCK", request.param)
    monkeypatch.setattr(greedy, "_NUMBERS", request.param)
    monkeypatch.setattr(greedy, "_SHORTLIST", min(request.param, 256))


def same(picks, expected):
    positions, scores = picks
    assert positions.dtype == torch.int64
    assert scores.dtype == torch.float64
    assert positions.tolist() == expected[0]
    assert scores.tolist() == expected[1]


@settings(max_examples=60, deadline=None)
@given(problems())
def test_by_inputs(problem):
    x, known, n = problem["features"], problem["labeled"], problem["n"]
    same(gsx(x, known, n), slow([(x, known)], n))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_by_output(problem):
    f, known, n = problem["predictions"], problem["targets"], problem["n"]
    same(gsy(f, known, n), slow([(f, known)], n))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_by_both(problem):
    expected = slow(
        [(problem["features"], problem["labeled"]), (problem["predictions"], problem["targets"])], problem["n"]
    )
    same(igs(**problem), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20).flatmap(lambda size: whole_numbers(size, 3)), st.integers(1, 25))
def test_without_labels_the_first_is_nearest_to_the_mean(x, n):
    positions, scores = gsx(x, x[:0], n)
    rows = x.int().tolist()
    mean = [Fraction(sum(column), len(rows)) for column in zip(*rows, strict=True)]
    from_mean = [math.sqrt(sum((a - b) ** 2 for a, b in zip(row, mean, strict=True))) for row in rows]
    first = int(positions[0])
    assert from_mean[first] == pytest.approx(min(from_mean), abs=1e-9)
    assert scores[0] == math.inf
    rest = slow([(torch.cat([x[:first], x[first + 1 :]]), x[first : first + 1])], n - 1)
    assert [position - (position > first) for position in positions[1:].tolist()] == rest[0]
    assert scores[1:].tolist() == rest[1]


def test_of_two_that_are_as_near_to_the_mean_the_first_is_picked():
    assert gsx(torch.tensor([[3.0], [1.0], [-1.0], [-3.0]]), torch.empty(0, 1), 1)[0].tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 3e18, 6e18, 1e19, 1.5e19, 2e19, 1e30])
def test_numbers_of_any_size(scale, dtype):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x, labeled = (scale * torch.randn(n, 3, generator=generator, dtype=dtype) for n in (40, 5))
        picks, expected = gsx(x, labeled, 12), slow([(x.double(), labeled.double())], 12)
        assert picks[0].tolist() == expected[0]
        torch.testing.assert_close(picks[1], torch.tensor(expected[1], dtype=torch.float64), rtol=1e-12, atol=0)


def test_equal_pairs_have_equal_distances_whatever_stands_beside_them():
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(5):
            one, other = torch.randn(2, 1, 200_000, generator=generator)
            (alone,) = gsx(one, other, 1)[1].tolist()
            assert gsx(one.repeat(3, 1), other, 3)[1].tolist()[0] == alone
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_fractions(seed):
    generator = torch.Generator().manual_seed(seed)
    x, labeled = torch.randn(40, 5, generator=generator), torch.randn(7, 5, generator=generator)
    f, y = torch.randn(40, 1, generator=generator), torch.randn(7, 1, generator=generator, dtype=torch.float64)
    for picks, expected in [
        (gsx(x, labeled, 12), slow([(x.double(), labeled.double())], 12)),
        (igs(x, f, labeled, y, 12), slow([(x.double(), labeled.double()), (f.double(), y)], 12)),
    ]:
        assert picks[0].tolist() == expected[0]
        torch.testing.assert_close(picks[1], torch.tensor(expected[1], dtype=torch.float64), rtol=1e-12, atol=0)


def test_duplicates_go_by_position_and_each_is_picked_once():
    x = torch.tensor([[1.0, 2], [5, 5], [1, 2], [5, 5], [1, 2]])
    positions, scores = gsx(x, torch.tensor([[1.0, 2]]), 9)
    assert positions.tolist() == [1, 0, 2, 3, 4]
    assert scores.tolist() == [5, 0, 0, 0, 0]


def test_duplicates_of_fractions_are_exactly_0_apart():
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(0)) * 1e3 + 1e6
    assert gsx(torch.cat([x, x]), x, 60) == (pytest.approx(torch.arange(60)), pytest.approx(torch.zeros(60)))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_and_tiny_values(scale):
    x = torch.tensor([[1.0, 0], [0, 3], [2, 2]]) * scale
    positions, scores = gsx(x, torch.zeros(1, 2), 3)
    assert positions.tolist() == [1, 2, 0]
    torch.testing.assert_close(scores, torch.tensor([3, 5**0.5, 1], dtype=torch.float64) * scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("known", [0, 1])
@pytest.mark.parametrize(("size", "n", "expected"), [(0, 3, []), (1, 3, [0]), (2, 0, [])])
def test_few_candidates(size, n, expected, known):
    x, labeled = torch.ones(size, 2), torch.zeros(known, 2)
    for picks in (gsx(x, labeled, n), gsy(x, labeled, n), igs(x, x, labeled, labeled, n)):
        assert picks[0].tolist() == expected
        assert len(picks[1]) == len(expected)


def test_greedy_sampling_leaves_its_arguments_unchanged():
    x, labeled = torch.randn(20, 3), torch.randn(4, 3)
    before = x.clone(), labeled.clone()
    igs(x, x[:, :1], labeled, labeled[:, :1], 5)
    assert torch.equal(x, before[0])
    assert torch.equal(labeled, before[1])


def test_greedy_sampling_ends_at_a_safe_point():
    def end():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gsx(torch.zeros(9, 1), torch.zeros(1, 1), 2, safe_point=end)
