"""The state of the learner: plain values, from which the same fit is made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from alcore_sklearn import SklearnLearner
from alcore_testing import run_command, untouched
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import UsageError
from alcore.inference import model_digest


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(0, 20), seed=st.integers(0, 2**62), order=st.sampled_from(["labeled", "pool"]))
def test_rebuilt_from_the_labels_and_the_seed(pool_of, rows, seed, order):
    ids = np.random.default_rng(1).permutation(40)[:20].tolist()
    then, now = pool_of(labeled=ids[:rows]), pool_of(labeled=ids)
    learner, again = (
        SklearnLearner("RandomForestClassifier", {"n_estimators": 3}, order=order, info=then.info) for _ in range(2)
    )
    learner.fit(then, seed)
    again.load_state_dict(json.loads(json.dumps(learner.state_dict())))
    assert model_digest(again) == model_digest(learner)
    if rows:
        with pytest.raises(UsageError, match=f"the state of a fit on {rows} samples; call rebuild"):
            again(then.inputs(torch.arange(2)))
    again.rebuild(now)
    everything = then.inputs(torch.arange(60))
    assert learner(everything).numpy().tobytes() == again(everything).numpy().tobytes()
    assert again.state_dict() == learner.state_dict()
    assert model_digest(again) == model_digest(learner)


def test_the_state_is_plain_and_tells_fits_apart(pool_of):
    pool = pool_of()
    learner = SklearnLearner("SVC", {"C": 1.0}, info=pool.info)
    digests = [model_digest(learner)]
    for labeled, seed, dtype in [
        (range(10), 0, torch.float64), (range(11), 0, torch.float64), (range(1, 11), 0, torch.float64),
        (range(10), 1, torch.float64), (range(10), 0, torch.float32), (range(10), 0, torch.bfloat16),
    ]:  # fmt: skip
        learner.fit(pool_of(labeled=labeled), seed, dtype)
        digests.append(model_digest(learner))
        assert json.loads(json.dumps(learner.state_dict())) == learner.state_dict()
        again = SklearnLearner("SVC", {"C": 1.0}, info=pool.info)
        again.load_state_dict(learner.state_dict())
        again.rebuild(pool_of(labeled=labeled))
        assert again.state_dict() == learner.state_dict()
    assert len(set(digests)) == len(digests)


def test_the_state_of_another_learner_is_refused(pool_of):
    state = SklearnLearner("SVC", {"C": 1.0}).state_dict()
    with pytest.raises(UsageError, match=r"saved with parameters \{'C': 1.0\}, and has \{'C': 2.0\} now"):
        SklearnLearner("SVC", {"C": 2.0}).load_state_dict(state)
    with pytest.raises(UsageError, match=r"saved with estimator 'sklearn.svm.SVC', and has 'sklearn.svm.NuSVC' now"):
        SklearnLearner("NuSVC").load_state_dict(state)


@pytest.mark.parametrize("order", ["labelled", "labeled"])
def test_a_state_with_the_old_spelling_of_the_order_is_read(pool_of, order):
    learner, again = SklearnLearner("SVC", order="labelled"), SklearnLearner("SVC", order=order)
    learner.fit(pool_of())
    assert learner.state_dict()["order"] == "labeled"
    again.load_state_dict({**learner.state_dict(), "order": "labelled"})
    again.rebuild(pool_of())
    assert again.state_dict() == learner.state_dict()
    with pytest.raises(UsageError, match="saved with order 'labeled', and has 'pool' now"):
        SklearnLearner("SVC", order="pool").load_state_dict({**learner.state_dict(), "order": "labelled"})


@pytest.mark.parametrize("part", ["learner.sklearn", "query.sklearn-uq"])
def test_an_experiment_with_the_old_spelling_of_the_order_is_read(tmp_path, part):
    parts = ["--data", "moons", "--learner", "sklearn", "--query", "sklearn-uq"]
    done = run_command(tmp_path, "run", *parts, f"--set={part}.order=labelled", "--steps", "1")
    assert done.code == 0, done.err


def test_loading_its_own_state_keeps_a_fit(pool_of):
    pool = pool_of()
    learner = SklearnLearner("SVC", info=pool.info)
    learner.fit(pool)
    fitted = learner.fitted
    learner.load_state_dict(learner.state_dict())
    assert learner.fitted is fitted


def test_too_few_labels_to_rebuild(pool_of):
    learner, again = SklearnLearner("SVC"), SklearnLearner("SVC")
    learner.fit(pool_of(labeled=range(10)))
    again.load_state_dict(learner.state_dict())
    with pytest.raises(UsageError, match="fitted on 10 labeled samples, and the pool has 9"):
        again.rebuild(pool_of(labeled=range(9)))


def test_other_samples_than_it_was_fitted_on_are_told(pool_of):
    learner, again = SklearnLearner("SVC"), SklearnLearner("SVC")
    learner.fit(pool_of(labeled=range(10)))
    again.load_state_dict(learner.state_dict())
    with pytest.warns(UserWarning, match="the 10 labeled samples are not those that it was fitted on"):
        again.rebuild(pool_of(labeled=range(1, 11)))


def test_fit_leaves_global_generators_unchanged(pool_of):
    pool = pool_of()
    inputs = pool.inputs(torch.arange(20))
    copy = inputs.clone()
    with untouched():
        learner = SklearnLearner("BaggingClassifier", {"estimator": {"use": "DecisionTreeClassifier"}}, info=pool.info)
        learner.fit(pool, seed=1)
        learner(inputs)
    assert torch.equal(inputs, copy)
