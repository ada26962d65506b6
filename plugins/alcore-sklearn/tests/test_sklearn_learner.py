"""The learner against scikit-learn itself, and what it does where there is too little to fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alcore_sklearn import SklearnLearner
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC, LinearSVC

from alcore import DataInfo, TensorPool, UsageError
from alcore.outputs import class_probabilities, predicted_classes
from alcore.randomness import derive_seed

DOUBLE = torch.float64


def arrays(pool):
    """What is labeled, in training order, and all inputs."""
    inputs, targets = pool.batch(torch.arange(len(pool)))
    return inputs.numpy(), targets.numpy(), pool.inputs(torch.arange(pool.total))


def test_probabilities_are_those_of_scikit_learn(pool_of):
    pool = pool_of()
    rows, codes, everything = arrays(pool)
    learner = SklearnLearner("LogisticRegression", {"C": 0.5}, info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    assert learner.outputs == "probabilities"
    expected = LogisticRegression(C=0.5).fit(rows, codes).predict_proba(everything.numpy())
    assert np.array_equal(learner(everything).numpy(), expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_decision_values_are_those_of_scikit_learn(pool_of, classes):
    pool = pool_of(classes)
    rows, codes, everything = arrays(pool)
    learner = SklearnLearner("SVC", {"C": 1.0, "gamma": "auto"}, info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    assert learner.outputs == "logits"
    expected = SVC(C=1.0, gamma="auto").fit(rows, codes).decision_function(everything.numpy())
    assert expected.shape == ((60,) if classes == 2 else (60, 3))
    assert np.array_equal(learner(everything).numpy(), expected)


def test_two_classes_are_told_by_the_sign_of_the_decision_value(pool_of):
    pool = pool_of(2)
    rows, codes, everything = arrays(pool)
    learner = SklearnLearner("SVC", info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    expected = SVC().fit(rows, codes).predict(everything.numpy())
    assert np.array_equal(predicted_classes(learner(everything), "logits").numpy(), expected)


@pytest.mark.parametrize(("columns", "shape"), [(None, (60,)), (1, (60, 1)), (2, (60, 2))])
def test_a_regression_has_the_shape_of_its_targets(values_of, columns, shape):
    pool = values_of(columns=columns)
    rows, targets, everything = arrays(pool)
    learner = SklearnLearner("Ridge", {"alpha": 0.1}, info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    expected = Ridge(alpha=0.1).fit(rows, targets.ravel() if columns == 1 else targets).predict(everything.numpy())
    assert learner(everything).shape == shape
    assert np.array_equal(learner(everything).numpy(), expected.reshape(shape))


def test_the_random_state_comes_from_the_seed_and_a_given_one_stays(pool_of):
    pool = pool_of()
    rows, codes, everything = arrays(pool)
    learner = SklearnLearner("RandomForestClassifier", {"n_estimators": 5}, info=pool.info)
    learner.fit(pool, seed=9, dtype=DOUBLE)
    state = derive_seed(9, "random_state") % 2**32
    expected = RandomForestClassifier(n_estimators=5, random_state=state).fit(rows, codes)
    assert np.array_equal(learner(everything).numpy(), expected.predict_proba(everything.numpy()))
    outputs = learner(everything)
    learner.fit(pool, seed=10, dtype=DOUBLE)
    assert not torch.equal(learner(everything), outputs)
    fixed = SklearnLearner("RandomForestClassifier", {"n_estimators": 5, "random_state": 4}, info=pool.info)
    fixed.fit(pool, seed=9, dtype=DOUBLE)
    expected = RandomForestClassifier(n_estimators=5, random_state=4).fit(rows, codes)
    assert np.array_equal(fixed(everything).numpy(), expected.predict_proba(everything.numpy()))


# -- too little to fit -------------------------------------------------------------------------------


@pytest.mark.parametrize("labeled", [None, []])
def test_learner_without_labels(pool_of, labeled):
    pool = pool_of(3, labeled=[])
    inputs = pool.inputs(torch.arange(5))
    for estimator, expected in [
        ("LogisticRegression", torch.full((5, 3), 1 / 3, dtype=DOUBLE)),
        ("SVC", torch.zeros(5, 3, dtype=DOUBLE)),
    ]:
        learner = SklearnLearner(estimator, info=pool.info)
        if labeled is not None:
            learner.fit(pool)
        assert torch.equal(learner(inputs), expected)
        assert learner.fitted is None
    assert torch.equal(SklearnLearner("SVC", info=pool_of(2).info)(inputs), torch.zeros(5, dtype=DOUBLE))
    assert SklearnLearner("SVC")(inputs).shape == (5,)
    info = DataInfo("regression", 0, 4, (4,))
    assert torch.equal(SklearnLearner("Ridge", info=info)(inputs), torch.zeros(5, dtype=DOUBLE))


@pytest.mark.parametrize("estimator", ["SVC", "LogisticRegression", "GaussianNB"])
@pytest.mark.parametrize(("classes", "only"), [(2, 0), (2, 1), (3, 0), (3, 2)])
def test_one_class_only(pool_of, estimator, classes, only):
    pool = pool_of(classes, labeled=range(only, 30, classes))
    learner = SklearnLearner(estimator, info=pool.info)
    learner.fit(pool)
    outputs = learner(pool.inputs(torch.arange(4)))
    assert outputs.shape == ((4,) if estimator == "SVC" and classes == 2 else (4, classes))
    assert outputs.isfinite().all()
    assert predicted_classes(outputs, learner.outputs).tolist() == [only] * 4
    certain = torch.zeros(4, classes, dtype=DOUBLE)
    certain[:, only] = 1
    assert torch.equal(class_probabilities(outputs, learner.outputs), certain)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_columns_stay_in_place_where_a_class_is_missing(pool_of, missing):
    pool = pool_of(3, labeled=[i for i in range(40) if i % 3 != missing])
    rows, codes, everything = arrays(pool)
    there = [code for code in range(3) if code != missing]
    learner = SklearnLearner("LogisticRegression", info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    outputs = learner(everything).numpy()
    assert (outputs[:, missing] == 0).all()
    assert np.array_equal(outputs[:, there], LogisticRegression().fit(rows, codes).predict_proba(everything.numpy()))
    learner = SklearnLearner("SVC", info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    outputs, decided = learner(everything), SVC().fit(rows, codes).decision_function(everything.numpy())
    assert torch.isfinite(outputs).all()
    assert np.array_equal((outputs[:, there[1]] - outputs[:, there[0]]).numpy(), decided)
    assert (class_probabilities(outputs, "logits")[:, missing] == 0).all()
    expected = SVC().fit(rows, codes).predict(everything.numpy())
    assert np.array_equal(predicted_classes(outputs, "logits").numpy(), expected)


def test_two_of_four_and_three_of_four_classes(pool_of):
    for there in ([1, 3], [0, 1, 3]):
        pool = pool_of(4, labeled=[i for i in range(48) if i % 4 in there])
        rows, codes, everything = arrays(pool)
        learner = SklearnLearner("LinearSVC", {"random_state": 0}, info=pool.info)
        learner.fit(pool, dtype=DOUBLE)
        probabilities = class_probabilities(learner(everything), "logits").numpy()
        assert (np.delete(probabilities, there, axis=1) == 0).all()
        assert set(probabilities.argmax(axis=1)) <= set(there)
        if len(there) == 3:
            expected = LinearSVC(random_state=0).fit(rows, codes).decision_function(everything.numpy())
            assert np.array_equal(learner(everything).numpy()[:, there], expected)


def test_without_info_the_labels_tell_how_many_classes_there_are(pool_of):
    pool = pool_of(4)
    learner = SklearnLearner("LogisticRegression")
    learner.fit(pool)
    assert learner(pool.inputs(torch.arange(3))).shape == (3, 4)


@pytest.mark.parametrize("estimator", ["LogisticRegression", "SVC"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fitted", [True, False])
def test_learner_of_no_samples_and_of_one(pool_of, estimator, classes, fitted):
    pool = pool_of(classes)
    learner = SklearnLearner(estimator, info=pool.info)
    if fitted:
        learner.fit(pool)
    one = learner(pool.inputs(torch.tensor([7])))
    assert learner(pool.inputs(torch.tensor([], dtype=torch.int64))).shape == (0, *one.shape[1:])
    assert len(one) == 1


# -- what is refused ---------------------------------------------------------------------------------


def test_task_and_estimator_must_fit():
    with pytest.raises(UsageError, match=r"sklearn.svm.SVR is a regressor, and the task.* is classification"):
        SklearnLearner("SVR", info=DataInfo("classification", 2))
    with pytest.raises(UsageError, match=r"sklearn.svm.SVC is a classifier, and the task.* is regression"):
        SklearnLearner("SVC", info=DataInfo("regression"))


@pytest.mark.parametrize("targets", [[0.0, 0.5, 1.0, 1.0], [0, 1, 2, 5], [0, -1, 1, 1], [[0, 1]] * 4])
def test_targets_that_are_no_class_codes(targets):
    info = DataInfo("classification", 3, 2, (2,))
    pool = TensorPool(torch.randn(4, 2), torch.tensor(targets), range(4), info)
    with pytest.raises(UsageError, match=r"targets must be class codes|one class a sample"):
        SklearnLearner("SVC", info=info).fit(pool)


def test_whole_numbers_of_any_type_are_class_codes(pool_of):
    pool = pool_of(2)
    inputs, targets = pool.batch(torch.arange(len(pool)))
    expected = SklearnLearner("SVC", info=pool.info)
    expected.fit(pool)
    other = TensorPool(inputs, targets[:, None].float(), range(len(inputs)), pool.info)
    learner = SklearnLearner("SVC", info=pool.info)
    learner.fit(other)
    assert torch.equal(learner(inputs), expected(inputs))


def test_error_of_scikit_learn_has_the_number_of_samples(pool_of):
    pool = pool_of(3, labeled=range(4))
    learner = SklearnLearner("LinearDiscriminantAnalysis", {"n_components": 3}, info=pool.info)
    with pytest.raises(UsageError, match=r"LinearDiscriminantAnalysis can't be fitted on 4 labeled samples: "):
        learner.fit(pool)


def test_decision_values_of_pairs_are_refused(pool_of):
    pool = pool_of(4)
    learner = SklearnLearner("SVC", {"decision_function_shape": "ovo"}, info=pool.info)
    learner.fit(pool)
    with pytest.raises(UsageError, match=r"decision_function of SVC returned shape \(2, 6\) for 4 classes"):
        learner(pool.inputs(torch.arange(2)))


def test_inputs_of_several_tensors_are_refused():
    with pytest.raises(UsageError, match="this data gives 2 tensors a sample"):
        SklearnLearner("SVC")((torch.zeros(2, 3), torch.zeros(2)))


@pytest.mark.parametrize("estimator", ["SVC", "LogisticRegression", "Ridge"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_sample_that_scikit_learn_refuses_has_nan_outputs_and_the_others_their_own(
    pool_of, values_of, estimator, bad
):
    pool = values_of() if estimator == "Ridge" else pool_of()
    learner = SklearnLearner(estimator, info=pool.info)
    learner.fit(pool, dtype=DOUBLE)
    inputs = pool.inputs(torch.arange(5))
    expected = learner(inputs)
    inputs[3, 1] = bad
    outputs = learner(inputs)
    assert outputs[3].isnan().all()
    assert torch.equal(outputs[:3], expected[:3])
    assert torch.equal(outputs[4:], expected[4:])


def test_estimators_that_take_nan_get_it(pool_of):
    pool = pool_of()
    learner = SklearnLearner("DecisionTreeClassifier", info=pool.info)
    learner.fit(pool)
    assert learner(torch.full((2, 4), torch.nan)).isfinite().all()


def test_inputs_of_any_shape_are_flattened():
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(30, 2, 3, generator=draw), torch.arange(30) % 2
    flat, deep = (TensorPool(rows, targets, range(20)) for rows in (inputs.flatten(1), inputs))
    learners = [SklearnLearner("SVC", info=pool.info) for pool in (flat, deep)]
    for learner, pool in zip(learners, (flat, deep), strict=True):
        learner.fit(pool)
    assert torch.equal(learners[0](inputs.flatten(1)), learners[1](inputs))
