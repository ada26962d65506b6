"""Every estimator of the list: fitted, asked, and made again from its state with the same bytes."""

from __future__ import annotations

import inspect

import pytest
import torch
from alcore_sklearn import SklearnLearner, available
from alcore_testing import untouched
from sklearn.base import ClassifierMixin

FAST = {
    "AdaBoostClassifier": {"n_estimators": 3},
    "AdaBoostRegressor": {"n_estimators": 3},
    "BaggingClassifier": {"n_estimators": 3},
    "BaggingRegressor": {"n_estimators": 3},
    "CalibratedClassifierCV": {"cv": 2, "estimator": {"use": "GaussianNB"}},
    "ElasticNetCV": {"cv": 2, "alphas": 3},
    "ExtraTreesClassifier": {"n_estimators": 3},
    "ExtraTreesRegressor": {"n_estimators": 3},
    "GradientBoostingClassifier": {"n_estimators": 3},
    "GradientBoostingRegressor": {"n_estimators": 3},
    "HistGradientBoostingClassifier": {"max_iter": 2},
    "HistGradientBoostingRegressor": {"max_iter": 2},
    "LassoCV": {"cv": 2, "alphas": 3},
    "LogisticRegressionCV": {"cv": 2, "Cs": 2, "max_iter": 9},
    "MLPClassifier": {"max_iter": 3},
    "MLPRegressor": {"max_iter": 3},
    "RandomForestClassifier": {"n_estimators": 3},
    "RandomForestRegressor": {"n_estimators": 3},
    "StackingClassifier": {"cv": 2},
    "StackingRegressor": {"cv": 2},
    "TunedThresholdClassifierCV": {"cv": 2, "thresholds": 3},
    "TheilSenRegressor": {"max_subpopulation": 50},
}
NEEDED = {
    "CCA": {"n_components": 1},
    "CategoricalNB": {"min_categories": 9},
    "PLSCanonical": {"n_components": 1},
    "RadiusNeighborsClassifier": {"radius": 9.0},
    "RadiusNeighborsRegressor": {"radius": 9.0},
    "SelfTrainingClassifier": {"estimator": {"use": "GaussianNB"}},
    "VotingClassifier": {"voting": "soft"},
}
TWO_CLASSES = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
SEVERAL_TARGETS = {"MultiOutputRegressor", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso",
                   "MultiTaskLassoCV", "RegressorChain"}  # fmt: skip
NO_OUTPUTS = {"OutputCodeClassifier"}  # neither predict_proba nor decision_function
ONE_COLUMN = {"IsotonicRegression"}  # takes one feature


def parameters(name, cls, classifies):
    """Arguments that make it quick, and estimators for those that are made of others."""
    arguments = inspect.signature(cls).parameters
    given = FAST.get(name, {}) | NEEDED.get(name, {})
    inner = {"use": "GaussianNB" if classifies else "Ridge"}
    if "estimator" in arguments and arguments["estimator"].default is inspect.Parameter.empty:
        given.setdefault("estimator", inner)
    if "estimators" in arguments:
        other = {"use": "DecisionTreeClassifier" if classifies else "DecisionTreeRegressor"}
        given["estimators"] = [["one", inner], ["other", other]]
    return given


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("full", sorted(set(available()) - {f"sklearn.multiclass.{name}" for name in NO_OUTPUTS}))
def test_fitted_asked_and_made_again(full, pool_of, values_of):
    cls = available()[full]
    name, classifies = cls.__name__, issubclass(cls, ClassifierMixin)
    if classifies:
        pool = pool_of(2 if name in TWO_CLASSES else 3, dtype="float64")
    else:
        pool = values_of(columns=2 if name in SEVERAL_TARGETS else None)
    if name in ONE_COLUMN:
        pool = type(pool)(pool.inputs(torch.arange(60))[:, :1], pool.inputs(torch.arange(60))[:, 1], range(5, 30))
    given = parameters(name, cls, classifies)
    learner, again = (SklearnLearner(full, given, info=pool.info) for _ in range(2))
    with untouched():
        learner.fit(pool, seed=5, dtype=torch.float64)
    inputs = pool.inputs(torch.arange(5, 30) if name in ("CategoricalNB", "IsotonicRegression") else torch.arange(60))
    with untouched():
        outputs = learner(inputs)
    columns = {True: (3,), False: (2,) if name in SEVERAL_TARGETS else ()}[classifies]
    assert outputs.shape == (len(inputs), *((2,) if name in TWO_CLASSES else columns))
    assert outputs.dtype == torch.float64
    assert outputs.isfinite().all()
    if learner.outputs == "probabilities":
        torch.testing.assert_close(outputs.sum(dim=1), torch.ones(len(outputs), dtype=torch.float64))
    again.load_state_dict(learner.state_dict())
    again.rebuild(pool)
    assert again(inputs).numpy().tobytes() == outputs.numpy().tobytes()
