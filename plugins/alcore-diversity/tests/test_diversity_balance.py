"""Density, class balance, strata and the start: each against a plain version."""

import math

import pytest
import torch
from alcore_diversity import density, distances
from alcore_diversity.checks import uncertainty_of
from alcore_diversity.class_balanced import class_balanced, label_counts
from alcore_diversity.density import information_density, mean_closeness, mean_cosine
from alcore_diversity.stratified import allocate, stratified
from alcore_diversity.stratified_start import one_of_each
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import UsageError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# -- density -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), seed=st.integers(0, 2**16), scale=st.sampled_from([1e-40, 1.0, 1e37]))
def test_mean_similarities_are_those_of_all_pairs(size, seed, scale):
    features = torch.randint(-3, 4, (size, 3), generator=seeded(seed)).float() * scale  # with some zero vectors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 36)
        patch.setattr(density, "BLOCK", 36)
        cosine, closeness = mean_cosine(features), mean_closeness(features)
    whole = features.double()
    products, norms = whole @ whole.T, whole.square().sum(dim=1).sqrt()
    expected = (products / (norms[:, None] * norms)).where(products != 0, 0)
    torch.testing.assert_close(cosine, expected.mean(dim=1), rtol=1e-9, atol=1e-12)
    between = (whole[:, None] - whole[None]).square().sum(dim=2).sqrt()
    torch.testing.assert_close(closeness, (1 / (1 + between)).mean(dim=1), rtol=1e-6, atol=1e-12)
    _, group = torch.unique(features, dim=0, return_inverse=True)
    for means in (cosine, closeness):  # equal samples are equally dense
        assert all(len(means[group == group_number].unique()) == 1 for group_number in range(int(group.max()) + 1))


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 30), n=st.integers(0, 35), seed=st.integers(0, 2**16), beta=st.sampled_from([0.0, 0.5, 1, 3])
)
def test_highest_scores_first(size, n, seed, beta):
    unsure = torch.randint(0, 3, (size,), generator=seeded(seed)).double()
    similar = torch.randint(-1, 3, (size,), generator=seeded(seed + 1)).double()
    positions, scores = information_density(unsure, similar, n, beta)
    plain = [float(u) * max(float(s), 0.0) ** beta for u, s in zip(unsure, similar, strict=True)]
    assert positions.tolist() == sorted(range(size), key=lambda one: (-plain[one], one))[:n]
    assert scores.tolist() == pytest.approx([plain[position] for position in positions.tolist()])


@pytest.mark.parametrize("size", [513, 519])  # beyond a block, so that products are computed in several ways
def test_copies_are_equally_dense_whatever_products_round_to(size):
    group = torch.arange(size) % 37
    features = torch.randn(37, 130, generator=seeded(size))[group] + 10
    for means in (mean_cosine(features), mean_closeness(features)):
        assert all(len(means[group == group_number].unique()) == 1 for group_number in range(37))


def test_no_samples_have_no_density():
    assert mean_cosine(torch.empty(0, 3)).shape == mean_closeness(torch.empty(0, 3)).shape == (0,)


def test_measures_of_uncertainty():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [1, 0, 0], [0.5, 0.5, 0]], dtype=torch.float64)
    expected = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert uncertainty_of("entropy", probabilities).tolist() == pytest.approx([expected, 0, math.log(2)])
    assert uncertainty_of("margin", probabilities).tolist() == pytest.approx([0.5, 0, 1])
    assert uncertainty_of("least_confidence", probabilities).tolist() == pytest.approx([0.3, 0, 0.5])


# -- class balance -----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 40), classes=st.integers(2, 5), n=st.integers(0, 45), seed=st.integers(0, 2**16))
def test_the_rarest_class_first_and_its_most_uncertain_sample(size, classes, n, seed):
    predicted = torch.randint(0, classes, (size,), generator=seeded(seed))
    unsure = torch.randint(0, 4, (size,), generator=seeded(seed + 1)).double()
    counts = torch.randint(0, 6, (classes,), generator=seeded(seed + 2))
    left, labels, expected = list(range(size)), counts.tolist(), []
    while left and len(expected) < n:
        rarest = min({int(predicted[sample]) for sample in left}, key=lambda label: (labels[label], label))
        pick = min(
            (sample for sample in left if predicted[sample] == rarest),
            key=lambda sample: (-float(unsure[sample]), sample),
        )
        expected.append(pick)
        left.remove(pick)
        labels[rarest] += 1
    assert class_balanced(predicted, unsure, counts, n).tolist() == expected


def test_labels_are_counted():
    assert label_counts(torch.tensor([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]
    assert label_counts(torch.tensor([[1.0], [0.0], [1.0]]), 2).tolist() == [1, 2]
    assert label_counts(torch.tensor([-1, 1, 1]), 2).tolist() == [1, 2]
    assert label_counts(None, 3).tolist() == label_counts(torch.empty(0), 3).tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match=r"targets go from 0 to 3.*3 classes.*numbered from 0"):
        label_counts(torch.tensor([0, 3]), 3)
    with pytest.raises(UsageError, match=r"\(5,\) each are not classes"):
        label_counts(torch.zeros(2, 5), 3)


# -- strata ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=7), st.integers(0, 90))
def test_shares_of_strata(sizes, n):
    total = min(n, sum(sizes))
    shares = allocate(torch.tensor(sizes), n).tolist()
    assert sum(shares) == total
    for share, size in zip(shares, sizes, strict=True):
        assert abs(share - total * size / max(sum(sizes), 1)) < 1
        assert share <= size
    equal = allocate(torch.tensor(sizes), n, "equal").tolist()
    plain = [0] * len(sizes)
    while sum(plain) < total:  # one to each in turn, as far as they last
        for stratum in range(len(sizes)):
            if plain[stratum] < sizes[stratum] and sum(plain) < total:
                plain[stratum] += 1
    assert equal == plain


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 35), st.sampled_from(["proportional", "equal"]))
def test_stratified_draws_the_share_of_each_stratum(strata, n, allocation):
    strata = torch.tensor(strata, dtype=torch.int64)
    picked = stratified(strata, n, seeded(0), allocation)
    assert len(set(picked.tolist())) == len(picked) == min(n, len(strata))
    if len(strata):
        shares = allocate(torch.bincount(strata), n, allocation)
        assert torch.bincount(strata[picked], minlength=len(shares)).tolist() == shares.tolist()


def test_samples_of_a_stratum_are_equally_likely_and_in_random_order():
    strata = torch.tensor([0, 1, 1, 0, 1, 1])
    counts, first = torch.zeros(6), torch.zeros(6)
    for seed in range(1200):
        picked = stratified(strata, 3, seeded(seed))
        counts[picked] += 1
        first[picked[0]] += 1
    # stratum 0 gives one of two samples, stratum 1 two of four; the first place is any sample's
    expected = torch.tensor([600.0] * 6)
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5  # 99.9 % of chi-square with 5 degrees
    assert float(((first - 200) ** 2 / 200).sum()) < 20.5


# -- the start ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.integers(0, 4), max_size=25), n=st.integers(0, 30), told=st.booleans())
def test_one_of_each_class(labels, n, told):
    ids = torch.arange(len(labels)) * 3 + 7
    answers = dict(zip(ids.tolist(), labels, strict=True))
    chosen = one_of_each(ids, answers.__getitem__, n, 5 if told else None)
    assert len(set(chosen)) == len(chosen) == min(n, len(labels))
    assert len({answers[sample] for sample in chosen}) == min(n, len(set(labels)))
    firsts = [one for place, one in enumerate(ids.tolist()) if labels[place] not in labels[:place]]
    assert chosen[: len(firsts)] == firsts[:n]
    others = [sample for sample in ids.tolist() if sample not in firsts]
    assert chosen[len(firsts) :] == others[: max(n - len(firsts), 0)]


@pytest.mark.parametrize(("n", "classes", "looked_up"), [(8, 3, 5), (2, 3, 4), (8, None, 9), (0, 3, 0)])
def test_one_of_each_looks_up_no_more_answers_than_needed(n, classes, looked_up):
    answers = iter([0, 0, 0, 1, 2, 1, 0, 2, 1])
    one_of_each(torch.arange(9), lambda _sample: next(answers), n, classes)
    assert len(list(answers)) == 9 - looked_up
