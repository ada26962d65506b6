"""The query strategy and the learner keep their contracts; that of training loops is of those that use gradients."""

import math

import torch
from alcore_sklearn import SklearnLearner, SklearnUncertaintyQuery
from alcore_testing import LearnerContract, QueryContract, assert_best_first
from sklearn.linear_model import LogisticRegression


class _Query(QueryContract):
    outputs = ("binary", "classes", "posterior", "map", "mapping")  # it doesn't look at them


class TestLogisticRegression(_Query):
    name = "sklearn-uq"

    def make(self, **parameters):
        return SklearnUncertaintyQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        pool = driver.train_datapool
        inputs, targets = pool.batch(torch.arange(len(pool)))
        fitted = LogisticRegression().fit(inputs.numpy(), targets.numpy())
        shares = fitted.predict_proba(pool.inputs(torch.tensor(candidates)).numpy()).astype(float).tolist()
        if len(shares[0]) == 2:
            scores = [min(p) for p in shares]
        else:
            scores = [-math.fsum(share * math.log(share) for share in p) for p in shares]
        assert_best_first(asked, dict(zip(candidates, scores, strict=True)), rtol=1e-5)


class TestDistanceFromTheBorder(_Query):
    def make(self, **parameters):
        return SklearnUncertaintyQuery(estimator="SVC", measure="decision", **parameters)


class _Fitted(LearnerContract):
    trains = False
    classifier, regressor = "LogisticRegression", "Ridge"

    def make(self, info):
        return SklearnLearner(self.regressor if info.task == "regression" else self.classifier, info=info)


class TestProbabilities(_Fitted):
    name = "sklearn"


class TestDecisionValues(_Fitted):
    classifier, regressor = "SVC", "SVR"


class TestRandomForest(_Fitted):
    classifier, regressor = "ExtraTreeClassifier", "ExtraTreeRegressor"


class TestOfImages(_Fitted):
    shape = (1, 4, 4)


class TestNotFittedYet(LearnerContract):
    """All classes are alike before anything is labeled, and that keeps the contract too."""

    trains = False
    is_fitted = False
    make = _Fitted.make
    classifier, regressor = "SVC", "Ridge"
