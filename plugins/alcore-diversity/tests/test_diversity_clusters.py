"""TypiClust and Cluster-Margin: clusters are gone through in the right order, and give the right sample."""

import math

import pytest
import torch
from alcore_diversity import cluster_margin as margins_of
from alcore_diversity import clusters as clusters_of
from alcore_diversity.cluster_margin import cluster_margin, round_robin
from alcore_diversity.clusters import average_linkage, k_means, most_typical
from alcore_diversity.typiclust import typiclust
from hypothesis import given, settings
from hypothesis import strategies as st


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def neighbor_distances(features, neighbors):
    """Mean distance to the nearest others, by the whole matrix in double precision."""
    between = (features.double()[:, None] - features.double()[None]).square().sum(dim=2).sqrt()
    nearest = between.fill_diagonal_(torch.inf).sort(dim=1).values[:, : min(neighbors, len(features) - 1)]
    return nearest.mean(dim=1) if nearest.shape[1] else torch.zeros(len(features), dtype=torch.float64)


def rounding(features):
    """What distances are rounded to: a millionth of the largest one from the mean."""
    away = features.double() - features.double().mean(dim=0)
    return float(away.square().sum(dim=1).max().sqrt()) * 2**-20 or 1.0


# -- TypiClust ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 60), neighbors=st.integers(1, 12), seed=st.integers(0, 2**16),
       block=st.sampled_from([40, 4000]), kind=st.sampled_from(["normal", "lattice", "copies", "spiky"]))  # fmt: skip
def test_the_most_typical_sample(size, neighbors, seed, block, kind):
    features = torch.randn(size, 3, generator=seeded(seed))
    if kind == "lattice":
        features = features.round()
    elif kind == "copies":
        features = features[torch.randint(0, size, (size,), generator=seeded(seed)) // 3]
    elif kind == "spiky":  # the densest samples are far from the mean
        features = features * torch.linspace(0, 3, size)[:, None] ** 4 + torch.linspace(5, 0, size)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters_of, "BLOCK", block)
        row, distance = most_typical(features + 50, neighbors)
    features = features + 50
    expected = neighbor_distances(features, neighbors)
    step = rounding(features)
    assert distance == pytest.approx(float(expected[row]), abs=step)
    assert float(expected[row]) <= float(expected.min()) + 2 * step
    assert not bool((expected[:row] < expected[row] - 2 * step).any())
    if kind in ("lattice", "copies"):
        assert row == int((expected <= expected.min() + 1e-9).nonzero()[0])  # of equal ones the first


def test_the_most_typical_sample_may_be_far_from_the_mean_and_have_few_near():
    lattice = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    away = torch.tensor([[50.0, 0], [50, 0], [50, 0], [51.5, 0], [48.5, 0], [50, 1.5]])
    row, distance = most_typical(torch.cat([lattice, away]), 5)
    assert row == 100
    assert distance == pytest.approx(0.9, rel=1e-4)  # two at 0, three at 1.5; in the lattice it is above 1


@pytest.mark.parametrize("scale", [1e-41, 1e37])
def test_tiny_and_huge_values(scale):
    features = torch.randint(-9, 10, (12, 2), generator=seeded(0)).float() * scale
    row, distance = most_typical(features, 4)
    expected = neighbor_distances(features, 4)
    assert row == int(expected.argmin())
    assert distance == pytest.approx(float(expected.min()), rel=1e-4)


def plain_typiclust(features, clusters, labeled, n, neighbors):
    """One cluster after the other, by the definition; typicality by the whole matrix."""
    names = sorted(set(clusters.tolist()) | set(labeled.tolist()))
    sizes = {cluster: int((clusters == cluster).sum() + (labeled == cluster).sum()) for cluster in names}
    counts = {cluster: int((labeled == cluster).sum()) for cluster in names}
    ranked = sorted(names, key=lambda one: (counts[one], -sizes[one], one))
    chosen = []
    for least, most in ((6, math.inf), (0, 5)):
        group = [cluster for cluster in ranked if least <= sizes[cluster] <= most]
        while len(chosen) < n:
            before = len(chosen)
            for cluster in group:
                rows = [row for row in range(len(clusters)) if clusters[row] == cluster and row not in chosen]
                if rows and len(chosen) < n:
                    mean = neighbor_distances(features[rows], min(neighbors, max(len(rows) // 2, 1)))
                    chosen.append(rows[int(mean.div(rounding(features[rows])).round().argmin())])
            if len(chosen) == before:
                break
    return chosen


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), labels=st.integers(0, 15), kinds=st.integers(1, 6), n=st.integers(1, 45),
       neighbors=st.integers(1, 20), seed=st.integers(0, 2**16))  # fmt: skip
def test_clusters_with_fewest_labels_first_and_their_most_typical_sample(size, labels, kinds, n, neighbors, seed):
    features = torch.randint(-3, 4, (size, 2), generator=seeded(seed)).float()
    clusters = torch.randint(0, kinds, (size,), generator=seeded(seed + 1))
    labeled = torch.randint(0, kinds, (labels,), generator=seeded(seed + 2))
    positions, typicality = typiclust(features, clusters, labeled, n, neighbors)
    assert positions.tolist() == plain_typiclust(features, clusters, labeled, n, neighbors)
    assert len(positions) == min(n, size)
    assert bool((typicality > 0).all())


def test_a_single_sample_equal_ones_and_none():
    none = torch.zeros(0, dtype=torch.int64)
    assert typiclust(torch.ones(1, 2), none.new_zeros(1), none, 3)[0].tolist() == [0]
    positions, typicality = typiclust(torch.full((8, 2), 0.1), none.new_zeros(8), none, 3)
    assert positions.tolist() == [0, 1, 2]
    assert typicality.tolist() == [math.inf] * 3
    assert typiclust(torch.ones(0, 2), none, none.new_zeros(4), 3)[0].tolist() == []


# -- k-means and average linkage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("clusters", [7, 60])  # in full, and by mini-batches
def test_k_means_finds_what_is_far_apart_and_depends_on_the_generator_alone(clusters):
    centers = torch.arange(clusters)[:, None] * 100.0
    features = (centers + torch.randn(clusters, 20, generator=seeded(0))).reshape(-1, 1)
    picked = k_means(features, clusters, seeded(1))
    assert picked.dtype == torch.int64
    assert torch.equal(picked, k_means(features, clusters, seeded(1)))
    by_center = picked.reshape(clusters, 20)
    assert bool((by_center == by_center[:, :1]).all())


@pytest.mark.parametrize("features", [torch.zeros(9, 3), torch.full((9, 3), 0.1), torch.eye(9, 3), torch.ones(1, 3)])
@pytest.mark.parametrize("clusters", [1, 4, 20])
def test_k_means_with_few_equal_or_huge_samples(features, clusters, recwarn):
    for scale in (1, 1e-41, 3e38):
        picked = k_means(features * scale, clusters, seeded(0))
        assert picked.shape == (len(features),)
        assert 0 <= int(picked.min()) <= int(picked.max()) < clusters
    assert not recwarn.list
    assert k_means(features[:0], clusters, seeded(0)).shape == (0,)


def test_average_linkage_cuts_by_number_or_distance():
    features = torch.tensor([[0.0], [1], [10], [11.5], [40]])
    assert len(average_linkage(features, 3).unique()) == 3
    by_distance = average_linkage(features, None, 5.0)
    assert by_distance[0] == by_distance[1] != by_distance[2] == by_distance[3] != by_distance[4]
    assert len(average_linkage(features, None, 0.0).unique()) == 5
    assert len(average_linkage(features, None, 1e9).unique()) == 1
    assert average_linkage(features[:1], 1).tolist() == [0]
    assert average_linkage(features[:0], 0).tolist() == []


# -- Cluster-Margin ----------------------------------------------------------------------------------------------------


def plain_round_robin(clusters, n):
    """Lists, one a cluster, smallest first; one sample of each in turn."""
    lists = {}
    for position, one in enumerate(clusters.tolist()):
        lists.setdefault(one, []).append(position)
    ranked = sorted(lists, key=lambda one: (len(lists[one]), one))
    taken = []
    while len(taken) < min(n, len(clusters)):
        for cluster in ranked:
            if lists[cluster] and len(taken) < n:
                taken.append(lists[cluster].pop(0))
    return taken


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 35))
def test_round_robin(clusters, n):
    picked = round_robin(torch.tensor(clusters, dtype=torch.int64), n)
    assert picked.tolist() == plain_round_robin(torch.tensor(clusters, dtype=torch.int64), n)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 60),
    n=st.integers(1, 70),
    seed=st.integers(0, 2**16),
    shortlist=st.sampled_from([1.0, 1.5, 4.0]),
)
def test_the_shortlist_are_the_smallest_margins_and_clusters_share(size, n, seed, shortlist):
    features = torch.randn(size, 2, generator=seeded(seed))
    margins = torch.randint(0, 5, (size,), generator=seeded(seed + 1)).double()
    positions = cluster_margin(features, margins, n, seeded(2), shortlist)
    chosen = positions.tolist()
    assert len(chosen) == len(set(chosen)) == min(n, size)
    least = sorted(range(size), key=lambda one: (margins[one], one))[: max(n, math.ceil(shortlist * n))]
    assert set(chosen) <= set(least)
    least = sorted(least)
    clusters = average_linkage(features[least], math.ceil(len(least) / 10))
    place = {one: int(clusters[position]) for position, one in enumerate(least)}
    order = [place[sample] for sample in chosen]
    expected = [int(clusters[position]) for position in plain_round_robin(clusters, n)]
    assert order == expected  # which cluster gives is decided; which of its samples is drawn


def test_samples_of_a_cluster_are_drawn_uniformly():
    features, margins = torch.zeros(4, 1), torch.zeros(4)
    counts = torch.zeros(4)
    for seed in range(200):
        counts[cluster_margin(features, margins, 1, seeded(seed), shortlist=4.0)] += 1
    assert float(((counts - 50) ** 2 / 50).sum()) < 16.27  # the 99.9 % quantile of chi-square with 3 degrees


@pytest.mark.parametrize("features", [torch.zeros(9, 3), torch.full((9, 3), 0.1), torch.eye(9, 3) * 3e38])
def test_zero_equal_and_huge_features(features):
    positions = cluster_margin(features, torch.arange(9.0), 4, seeded(0), threshold=1.0)
    assert len(set(positions.tolist())) == 4


def test_one_sample_and_none():
    assert cluster_margin(torch.ones(1, 2), torch.zeros(1), 3, seeded(0)).tolist() == [0]
    assert cluster_margin(torch.ones(0, 2), torch.zeros(0), 3, seeded(0)).tolist() == []
    assert cluster_margin(torch.ones(4, 2), torch.zeros(4), 0, seeded(0)).tolist() == []
    assert margins_of.ClusterMarginQuery().shortlist == 10
