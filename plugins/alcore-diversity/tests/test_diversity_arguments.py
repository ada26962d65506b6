"""Each function over arrays: its arguments come back as they were, and their precision makes no difference."""

import pytest
import torch
from alcore_diversity.badge import Gradients, badge
from alcore_diversity.class_balanced import class_balanced, label_counts
from alcore_diversity.cluster_margin import cluster_margin
from alcore_diversity.clusters import average_linkage, k_means, most_typical
from alcore_diversity.density import information_density, mean_closeness, mean_cosine
from alcore_diversity.distances import Frame, distinct, exact_squares, largest, unit
from alcore_diversity.kcenter import k_center, nearest_to_mean
from alcore_diversity.nearest_center import NearestCenter
from alcore_diversity.probcover import prob_cover, pure_radius
from alcore_diversity.radius_graph import Balls
from alcore_diversity.typiclust import typiclust
from alcore_testing.plain import same
from alcore_testing.watch import Unwritten

CLASSES = torch.arange(40) % 3


def seeded():
    return torch.Generator().manual_seed(0)


# Of features x, labeled samples y and class probabilities p
FUNCTIONS = {
    "badge": lambda x, y, p: badge(x, p, 7, seeded()),
    "Gradients": lambda x, y, p: Gradients(x, p).to(torch.arange(5)),
    "class_balanced": lambda x, y, p: class_balanced(CLASSES, p[:, 0], label_counts(CLASSES[:9], 3), 7),
    "cluster_margin": lambda x, y, p: cluster_margin(x, p[:, 0], 7, seeded(), 3.0),
    "average_linkage": lambda x, y, p: average_linkage(x, 4),
    "k_means": lambda x, y, p: k_means(x, 4, seeded()),
    "most_typical": lambda x, y, p: most_typical(x, 5),
    "mean_cosine": lambda x, y, p: mean_cosine(x),
    "mean_closeness": lambda x, y, p: mean_closeness(x),
    "information_density": lambda x, y, p: information_density(p[:, 0], p[:, 1], 7),
    "Frame": lambda x, y, p: Frame(x, y).scaled(x),
    "from_placed": lambda x, y, p: Frame(x, y).from_placed(x),
    "distinct": lambda x, y, p: distinct(x),
    "exact_squares": lambda x, y, p: exact_squares(x, y[:1]),
    "largest": lambda x, y, p: largest(x),
    "unit": lambda x, y, p: unit(x),
    "k_center": lambda x, y, p: k_center(x, y, 7),
    "NearestCenter": lambda x, y, p: NearestCenter(x, y).settle(torch.arange(5)).values,
    "nearest_to_mean": lambda x, y, p: nearest_to_mean(x),
    "prob_cover": lambda x, y, p: prob_cover(x, y, 1.0, 7, seeded()),
    "pure_radius": lambda x, y, p: pure_radius(x, CLASSES, 0.9, seeded()),
    "Balls": lambda x, y, p: Balls(x, 1.0).counts(torch.arange(9)),
    "typiclust": lambda x, y, p: typiclust(x, CLASSES, CLASSES[: len(y)], 7),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("block", [2**18, 24])
def test_arguments_stay_as_they_were_and_precision_makes_no_difference(name, block, monkeypatch):
    monkeypatch.setattr("alcore_diversity.distances.BLOCK", block)
    results = []
    for dtype in (torch.float32, torch.float64):
        features = torch.randn(40, 3, generator=seeded()).to(dtype)
        labeled = (torch.randn(6, 3, generator=seeded()) + 1).to(dtype)
        shares = torch.randint(1, 9, (40, 3), generator=seeded()).to(dtype) / 8
        unwritten = Unwritten()
        unwritten.given("arguments", (features, labeled, shares, CLASSES))
        results.append(FUNCTIONS[name](features, labeled, shares))
        unwritten.check()
    if name != "Frame":  # it rounds to single precision, less what single precision has lost already
        assert same(*results)


def test_tiny_features_in_double_precision_have_gradients():
    features = torch.tensor([[3e-310, 1e-310], [2e-310, 2e-310]], dtype=torch.float64)
    shares = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert sorted(badge(features, shares, 2, seeded())[0].tolist()) == [0, 1]
