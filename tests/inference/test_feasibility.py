"""The classifier of feasible inputs, by its formula, and what it does to scores."""

import math

import pytest
import torch

from alcore.inference.feasibility import FeasibilityModel, weighted_by


def drawn(count, seed, side=0.0):
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    points[:, 0] = points[:, 0].abs() * side if side else points[:, 0]
    return points * torch.tensor([1.0, 500.0]) + 7


def test_probability_is_the_share_near_by():
    feasible, infeasible, new = drawn(12, 0, -1), drawn(9, 1, 1), drawn(5, 2)
    model = FeasibilityModel(feasible, infeasible)
    points = torch.cat([feasible, infeasible]).double()
    scale = points.std(dim=0, correction=0)
    for row, found in zip(new, model.probability(new), strict=True):
        near = [math.exp(-float(((row - other) / scale).square().sum()) / (2 * model.width**2)) for other in points]
        expected = (sum(near[:12]) + 0.5 * 12 / 21) / (sum(near) + 0.5)
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_width_has_the_highest_leave_one_out_likelihood():
    feasible, infeasible = drawn(10, 0, -1), drawn(10, 1, 1)
    model = FeasibilityModel(feasible, infeasible)
    points = torch.cat([feasible, infeasible]).double()
    rows = (points - points.mean(0)) / points.std(dim=0, correction=0)

    def likelihood(width):
        total = 0.0
        for i in range(20):
            near = [math.exp(-float((rows[i] - rows[j]).square().sum()) / (2 * width**2)) * (i != j) for j in range(20)]
            share = (sum(near[:10]) + 0.275) / (sum(near) + 0.5)
            total += math.log(share if i < 10 else 1 - share)
        return total

    widths = [spread * math.sqrt(2) for spread in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)]
    assert model.width == pytest.approx(max(widths, key=likelihood))


def test_a_known_half_is_told_from_the_other():
    model = FeasibilityModel(drawn(25, 0, -1), drawn(25, 1, 1))
    new = drawn(200, 2)
    right = (model.probability(new) > 0.5) == (new[:, 0] < 7)
    assert float(right.double().mean()) > 0.95


def test_what_is_far_from_all_failures_is_not_taken_for_infeasible():
    """Most have failed, all around an island of labels; another island, where nobody has looked, stays open."""
    island, around = drawn(12, 0) * 0.1, drawn(30, 1) * 0.3
    model = FeasibilityModel(island, around[(around - island.mean(0)).norm(dim=1) > 1])
    assert float(model.probability(island.mean(0)[None] + 50.0)) == pytest.approx(0.55)
    assert float(model.probability(around[:1])) < 0.5


def test_where_nothing_is_to_be_learned_all_have_the_overall_share():
    model = FeasibilityModel(torch.ones(6, 3), torch.ones(2, 3))
    assert model.probability(torch.ones(4, 3)).tolist() == pytest.approx([0.75] * 4)
    assert model.probability(torch.empty(0, 3)).shape == (0,)


def test_many_samples_are_thinned_out():
    model = FeasibilityModel(drawn(9000, 0, -1), drawn(3000, 1, 1))
    assert model.probability(torch.tensor([[6.5, 7.0], [7.5, 7.0]])).tolist() == pytest.approx([1, 0], abs=0.05)
    assert model.expected == pytest.approx(0.75)


def test_weights_lower_scores_of_either_sign():
    scores, probability = torch.tensor([2.0, 2.0, -3.0, -3.0, 0.0]), torch.tensor([1.0, 0.5, 1.0, 0.5, 0.1])
    assert weighted_by(scores, probability).tolist() == [2.0, 1.0, -3.0, -6.0, 0.0]


def test_of_inputs_that_are_no_numbers_nothing_is_known():
    model = FeasibilityModel(drawn(25, 0, -1), drawn(25, 1, 1))
    new = torch.tensor([[math.nan, 7.0], [math.inf, 7.0], [6.0, 7.0]])
    probabilities = model.probability(new)
    assert probabilities[:2].tolist() == [0.55, 0.55]
    assert float(probabilities[2]) == pytest.approx(float(model.probability(new[2:])[0])) != 0.55
