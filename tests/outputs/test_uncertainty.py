"""The measures against the formulas written out in NumPy, in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alcore.outputs.uncertainty import entropy, least_confidence, margin

MEASURES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
every_measure = pytest.mark.parametrize("measure", MEASURES)


def brute(probabilities: np.ndarray, measure: str) -> np.ndarray:
    """Scores of rows of probabilities, float64 (B, C), one row at a time."""
    scores = []
    for row in probabilities:
        best, second, *_ = sorted(row, reverse=True)
        scores.append(
            {
                "least_confidence": 1 - best,
                "margin": second - best,
                "entropy": -sum(p * np.log(p) for p in row if p > 0),
            }[measure]
        )
    return np.array(scores)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def logits(*shapes: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Logits from -8 to 8 in steps of 0.01, so that scores differ clearly or are equal."""
    elements = st.integers(-800, 800).map(lambda n: n / 100)
    return st.sampled_from(shapes).flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=elements))


def ranking(scores: np.ndarray) -> list[int]:
    return np.lexsort((np.arange(len(scores)), -np.asarray(scores))).tolist()


@every_measure
@settings(deadline=None, max_examples=20)
@given(values=logits((1, 2), (5, 2), (7, 3), (4, 10)))
def test_class_logits(measure, values):
    scores = MEASURES[measure](torch.from_numpy(values))
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), brute(softmax(values), measure), rtol=1e-9, atol=1e-12)


@every_measure
@settings(deadline=None, max_examples=20)
@given(values=logits((1, 2), (5, 2), (7, 3), (4, 10)))
def test_class_probabilities(measure, values):
    probabilities = softmax(values)
    scores = MEASURES[measure](torch.from_numpy(probabilities), "probabilities")
    np.testing.assert_allclose(scores.numpy(), brute(probabilities, measure), rtol=1e-9, atol=1e-12)


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@settings(deadline=None, max_examples=20)
@given(values=logits((1, 4, 2), (3, 5, 3), (6, 1, 4)))
def test_posterior_samples_count_by_their_mean_probability(measure, kind, values):
    probabilities = softmax(values)
    outputs = torch.from_numpy(values if kind == "logits" else probabilities)
    expected = brute(probabilities.mean(axis=0), measure)
    np.testing.assert_allclose(MEASURES[measure](outputs, kind).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_posterior_samples_are_not_averaged_as_logits():
    outputs = torch.tensor([[[8.0, 0.0], [1.0, 0.0]], [[0.0, 7.0], [1.0, 0.0]]])  # the models disagree on sample 0
    assert entropy(outputs)[0] > entropy(outputs)[1]
    assert entropy(outputs.mean(dim=0))[0] < entropy(outputs)[0]


@every_measure
@pytest.mark.parametrize("column", [False, True], ids=["(B,)", "(B, 1)"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@settings(deadline=None, max_examples=20)
@given(values=logits((1,), (9,)))
def test_one_output_column_ranks_as_the_probabilities_do(measure, column, kind, values):
    likelier = 1 / (1 + np.exp(-np.abs(values)))  # mirrored, so that +x and -x tie exactly
    expected = ranking(brute(np.stack([likelier, 1 - likelier], axis=1), measure))
    if kind == "probabilities":
        outputs = torch.from_numpy(1 / (1 + np.exp(-values)))
        np.testing.assert_allclose(torch.special.logit(outputs).numpy(), values, atol=1e-9)  # worth comparing at all
    else:
        outputs = torch.from_numpy(values)
    scores = MEASURES[measure](outputs[:, None] if column else outputs, kind)
    assert scores.shape == (len(values),)
    # rounding may part +x from -x once they went through a probability; what is left is their order
    assert ranking(np.round(scores.numpy(), 7)) == expected


@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 2)])
def test_for_two_classes_all_three_measures_rank_alike(shape):
    outputs = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    rankings = {tuple(ranking(np.round(measure(outputs).numpy(), 12))) for measure in MEASURES.values()}
    assert len(rankings) == 1


def nearly_certain(n: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.uniform(20, 30, n) * generator.choice([-1, 1], n)).astype(np.float32)


def nearly_even(n: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.uniform(1e-6, 1e-4, n) * generator.choice([-1, 1], n)).astype(np.float32)


@every_measure
@pytest.mark.parametrize("make", [nearly_certain, nearly_even])
def test_the_trap_of_single_precision(measure, make):
    """100,000 predictions that are nearly certain, or nearly even, are ranked as exact arithmetic would."""
    values = make(100_000, seed=3)
    unsure = 1 / (1 + np.exp(np.abs(values.astype(np.float64))))
    expected = ranking(unsure)[:100]
    scores = MEASURES[measure](torch.from_numpy(values))
    assert ranking(scores.numpy())[:100] == expected

    positive = torch.sigmoid(torch.from_numpy(values))  # what a naive version does, and why it is wrong
    naive = torch.special.entr(torch.stack([positive, 1 - positive])).sum(dim=0)
    assert ranking(naive.numpy())[:100] != expected


@every_measure
def test_outputs_in_single_precision_are_scored_in_double(measure):
    outputs = 1e-4 * torch.randn(500, 3, generator=torch.Generator().manual_seed(4))  # nearly even
    expected = brute(softmax(outputs.double().numpy()), measure)
    np.testing.assert_allclose(MEASURES[measure](outputs).numpy(), expected, rtol=0, atol=1e-14)


def test_nearly_certain_predictions_of_three_classes_are_told_apart():
    lead = torch.linspace(50, 60, 1001, dtype=torch.float32)
    outputs = torch.stack([lead, torch.zeros(1001), torch.zeros(1001)], dim=1)
    for measure in (least_confidence, entropy):
        scores = measure(outputs)
        assert torch.equal(scores.argsort(descending=True), torch.arange(1001)), measure


@every_measure
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_is_never_lost(measure, place):
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]])
    probabilities[1, place] = torch.nan
    for outputs, kind in [(probabilities, "probabilities"), (probabilities.log(), "logits")]:
        assert MEASURES[measure](outputs, kind).isnan().tolist() == [False, True]
    assert MEASURES[measure](torch.tensor([0.5, torch.nan])).isnan().tolist() == [False, True]


@every_measure
def test_certain_probabilities_are_least_worth_asking_for(measure):
    binary = MEASURES[measure](torch.tensor([1.0, 0.5, 0.0, 0.9]), "probabilities")
    assert not binary.isnan().any()
    assert ranking(binary.numpy()) == [1, 3, 0, 2]
    several = MEASURES[measure](torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.1, 0.9]]), "probabilities")
    assert ranking(several.numpy()) == [1, 2, 0]


@every_measure
def test_posterior_samples_of_one_column_are_two_classes(measure):
    """(K, B, 1): K binary logits a sample, not a softmax over one class, which is always 1."""
    samples = torch.tensor([[[3.0], [0.1], [-1.0]], [[2.0], [-0.1], [-1.5]]])
    assert ranking(MEASURES[measure](samples).numpy()) == [1, 2, 0]


@every_measure
@pytest.mark.parametrize("outputs", [torch.tensor([1, 2]), torch.zeros(2, 2, 2, 2), torch.tensor(0.5), {"logits": 1}])
def test_outputs_that_are_not_a_classifiers_are_refused(measure, outputs):
    with pytest.raises(ValueError, match=r"the learner returned a"):
        MEASURES[measure](outputs)


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 4), (3, 5, 4), (3, 5, 1)])
def test_temperature_divides_the_logits(measure, kind, shape):
    draw = torch.Generator().manual_seed(6)
    logits = torch.randn(shape, generator=draw, dtype=torch.float64) * 3
    several = len(shape) > 1 and shape[-1] > 1
    given = logits if kind == "logits" else torch.softmax(logits, -1) if several else torch.sigmoid(logits)
    expected = MEASURES[measure](logits / 2.5)
    torch.testing.assert_close(MEASURES[measure](given, kind, 2.5), expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="temperature is 0"):
        MEASURES[measure](given, kind, 0)


@every_measure
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("shape", [(9, 3), (9, 10), (4, 9, 3), (4, 9, 1), (9, 131)])
def test_a_score_does_not_depend_on_the_samples_beside(measure, kind, shape):
    """Ties are broken by id, so that equal predictions must score alike to the last bit."""
    draw = torch.Generator().manual_seed(8)
    rows = torch.randn(shape, generator=draw)
    rows = rows if kind == "logits" else torch.softmax(rows, -1) if shape[-1] > 1 else torch.sigmoid(rows)
    axis = len(shape) - 2
    alone = torch.cat([MEASURES[measure](rows.select(axis, i).unsqueeze(axis), kind) for i in range(9)])
    for n in (2, 7, 31, 32, 33, 500):
        order = torch.randint(0, 9, (n,), generator=draw)
        assert torch.equal(MEASURES[measure](rows.index_select(axis, order), kind), alone[order]), n


def test_least_confidence_and_margin_keep_what_one_less_the_largest_would_round_away():
    """Two nearly even classes, and three of which one is nearly certain, by exact expansions."""
    tiny = torch.tensor([[1e-9, 0.0], [2e-9, 0.0]], dtype=torch.float64)
    assert margin(tiny).tolist() == pytest.approx([-0.5e-9, -1e-9], rel=1e-12)
    sure = torch.tensor([[80.0, 0, 0], [81.0, 0, 0]], dtype=torch.float64)
    assert least_confidence(sure).tolist() == pytest.approx([2 * np.exp(-80), 2 * np.exp(-81)], rel=1e-12)
    assert entropy(sure).tolist() == pytest.approx([162 * np.exp(-80), 164 * np.exp(-81)], rel=1e-12)
