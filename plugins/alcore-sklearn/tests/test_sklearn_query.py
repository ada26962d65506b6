"""The measures against plain Python, and the strategy against scikit-learn itself."""

from __future__ import annotations

import itertools
import math
import queue

import numpy as np
import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_random import RandomQuery
from alcore_sklearn import SklearnLearner, SklearnUncertaintyQuery
from alcore_sklearn.query import uncertainty
from alcore_testing import untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from alcore import DataInfo, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError
from alcore.training import FittingLoop

MEASURES = ("least_confidence", "margin", "entropy")


class Asked(list):
    """Takes in what a strategy asks for, as the query queue does."""

    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = scores


def ask(pool, strategy, *, seed=0, step=0, **settings):
    driver = Driver(
        c.DriverConfig(batch_size=4, root_log_dir="not-made", device="cpu", seed=seed, dtype=torch.float64, **settings),
        torch.nn.Linear(4, 3),
        c.StrategiesConfig([strategy], queue.Queue),
        c.TrainingConfig(pool, max_training_epochs=0),
    )
    driver.position.step = step
    strategy.check()
    asked = Asked()
    with untouched(driver):
        strategy.sample(asked)
    return asked


def one_score(row, measure):
    """Brute force, for three classes and more."""
    best, second = sorted(row, reverse=True)[:2]
    if measure in ("margin", "decision"):
        return second - best
    return 1 - best if measure == "least_confidence" else -sum(p * math.log(p) for p in row if p)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(sum), min_size=1, max_size=6),
    measure=st.sampled_from(MEASURES),
)
def test_measures_of_probabilities(rows, measure):
    rows = [[weight / sum(row) for weight in row] for row in rows]
    scores = uncertainty(torch.tensor(rows, dtype=torch.float64), measure)
    assert scores.dtype == torch.float64
    expected = torch.tensor([one_score(row, measure) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_probabilities_in_another_order_of_the_classes_tie(measure):
    shares = torch.rand(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares /= shares.sum(dim=1, keepdim=True)
    scores = uncertainty(shares, measure)
    for order in itertools.permutations(range(4)):
        assert torch.equal(uncertainty(shares[:, order], measure), scores)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=6))
def test_measure_of_decision_values(rows):
    scores = uncertainty(torch.tensor(rows, dtype=torch.float64), "decision").tolist()
    assert scores == [one_score(row, "decision") for row in rows]
    flat = torch.tensor(rows, dtype=torch.float64).flatten()
    assert torch.equal(uncertainty(flat, "decision"), -flat.abs())


@pytest.mark.parametrize("measure", MEASURES)
def test_two_classes_rank_alike_by_every_measure_and_hardly_ever_tie(measure):
    tiny = torch.tensor([0.5, 0.5 - 1e-12, 0.4, 1e-9, 1e-200, 0.0], dtype=torch.float64)
    scores = uncertainty(torch.stack([1 - tiny, tiny], dim=1), measure)
    assert (scores.diff() < 0).all()


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_least_sure_samples_of_an_estimator_fitted_on_the_labels(pool_of, measure, classes):
    pool = pool_of(classes)
    rows, codes = pool.batch(torch.arange(len(pool)))
    ids = pool.unlabeled_indices()
    fitted = LogisticRegression(C=0.1).fit(rows.numpy(), codes.numpy())
    probabilities = fitted.predict_proba(pool.inputs(ids).numpy())
    expected = sorted(range(len(ids)), key=lambda i: (-one_score(probabilities[i], measure), i))[:6]
    asked = ask(pool, SklearnUncertaintyQuery(6, "LogisticRegression", {"C": 0.1}, measure))
    assert asked == ids[expected].tolist()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_samples_nearest_to_the_border(pool_of, classes):
    pool = pool_of(classes)
    rows, codes = pool.batch(torch.arange(len(pool)))
    ids = pool.unlabeled_indices()
    values = SVC().fit(rows.numpy(), codes.numpy()).decision_function(pool.inputs(ids).numpy())
    scores = -abs(values) if classes == 2 else np.array([one_score(row, "decision") for row in values])
    asked = ask(pool, SklearnUncertaintyQuery(5, "SVC", measure="decision"))
    assert asked == ids[np.argsort(-scores, kind="stable")[:5]].tolist()
    assert asked.scores == sorted(scores, reverse=True)[:5]


@pytest.mark.parametrize("labeled", [[], range(0, 30, 3)])
def test_query_without_labels_or_with_one_class_asks_for_the_lowest_ids(pool_of, labeled):
    pool = pool_of(labeled=labeled)
    for strategy in (SklearnUncertaintyQuery(4), SklearnUncertaintyQuery(4, "SVC", measure="decision")):
        assert ask(pool, strategy) == pool.unlabeled_indices()[:4].tolist()


@pytest.mark.parametrize(("n", "labeled", "count"), [(0, 25, 0), (100, 25, 35), (5, 60, 0), (5, 59, 1)])
def test_query_asks_for_max_samples_or_all_that_are_left(pool_of, n, labeled, count):
    asked = ask(pool_of(labeled=range(labeled)), SklearnUncertaintyQuery(n))
    assert len(asked) == len(set(asked)) == count


def test_duplicates_are_ranked_by_id():
    inputs = torch.ones(20, 2, dtype=torch.float64)
    inputs[:6:2] = -1
    pool = TensorPool(inputs, torch.arange(20) % 2, range(6), DataInfo("classification", 2, 2, (2,)))
    assert ask(pool, SklearnUncertaintyQuery(14)) == list(range(6, 20))


def test_a_class_without_a_label_does_no_harm(pool_of):
    pool = pool_of(3, labeled=[i for i in range(40) if i % 3])
    for strategy in (SklearnUncertaintyQuery(5), SklearnUncertaintyQuery(5, "SVC", measure="decision")):
        assert len(set(ask(pool, strategy))) == 5


def test_the_seed_of_the_run_and_the_step_decide(pool_of):
    def picks(**kwargs):
        return ask(pool_of(), SklearnUncertaintyQuery(5, "RandomForestClassifier", {"n_estimators": 2}), **kwargs)

    assert picks(seed=1) == picks(seed=1)
    assert len({tuple(picks(seed=seed, step=step)) for seed in range(3) for step in range(2)}) > 1


@pytest.mark.parametrize("measure", ["entropy", "decision"])
def test_nan_is_refused_by_name(pool_of, measure):
    pool = pool_of()
    pool._inputs[41, 2] = torch.nan
    with pytest.raises(QueryError, match="the score of sample 41 is NaN"):
        ask(pool, SklearnUncertaintyQuery(2, measure=measure))
    pool = pool_of()
    pool._inputs[7, 2] = torch.nan  # a labeled one
    with pytest.raises(UsageError, match=r"LogisticRegression can't be fitted on 25 labeled samples: .*NaN"):
        ask(pool, SklearnUncertaintyQuery(2, measure=measure))


def test_a_pool_that_augments_leaves_no_trace_in_the_generators(pool_of):
    class Augmenting(TensorPool):
        def batch(self, positions):
            inputs, targets = super().batch(positions)
            return inputs + 0.01 * torch.randn(inputs.shape, dtype=inputs.dtype), targets

    whole = pool_of()
    ids = torch.arange(60)
    pool = Augmenting(whole.inputs(ids), ids % 3, range(5, 30), whole.info)
    assert len(ask(pool, SklearnUncertaintyQuery(3))) == 3


def test_query_may_use_another_estimator_than_the_learner(tmp_path, pool_of):
    pool = pool_of(2)
    driver = Driver(
        c.DriverConfig(batch_size=4, max_active_learning_steps=3, root_log_dir=tmp_path, device="cpu", seed=0),
        SklearnLearner("SVC", info=pool.info),
        c.StrategiesConfig([SklearnUncertaintyQuery(2), RandomQuery(1)], queue.Queue, DummyLabelStrategy()),
        c.TrainingConfig(pool, max_training_epochs=1, train_loop_fn=FittingLoop()),
    )
    driver.run()
    assert len(pool) == 34


def test_query_refuses_data_that_it_cannot_use(values_of, pool_of):
    with pytest.raises(UsageError, match=r"sklearn.svm.SVR is a regressor, and the measures are for classes"):
        SklearnUncertaintyQuery(1, "SVR")
    with pytest.raises(UsageError, match=r"sklearn.svm.LinearSVC with these parameters offers no probabilities"):
        SklearnUncertaintyQuery(1, "LinearSVC")
    with pytest.raises(UsageError, match=r"measure is 'gini'; it must be one of least_confidence, margin, entropy"):
        SklearnUncertaintyQuery(1, measure="gini")
    with pytest.raises(UsageError, match=r"max_samples is -1"):
        SklearnUncertaintyQuery(-1)
    with pytest.raises(UsageError, match=r"ranks by classes, and the task of this data is regression"):
        ask(values_of(), SklearnUncertaintyQuery(1))


def test_items_of_a_pool_without_batches_are_read_as_training_reads_them(pool_of):
    known, collated = pool_of(labeled=range(20)), []

    class Unbatched:
        info, total, labeled_ids = known.info, known.total, known.labeled_ids
        inputs, unlabeled_indices, append = known.inputs, known.unlabeled_indices, known.append
        __len__, __getitem__ = lambda self: len(known), lambda self, index: known[index]

    def collate(items):
        collated.extend(items)
        return torch.utils.data.default_collate(items)

    asked = [
        ask(pool, SklearnUncertaintyQuery(4), **more)
        for pool, more in ((known, {}), (Unbatched(), {"collate_fn": collate}))
    ]
    assert asked[0] == asked[1]
    assert len(collated) == 20
