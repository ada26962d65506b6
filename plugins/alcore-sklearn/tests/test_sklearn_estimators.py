"""Names come from scikit-learn's own list, and values are checked before a run starts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from alcore_sklearn.estimators import available, build, full_name, output_of, plain, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from alcore import UsageError


def test_imports_of_scikit_learn_leave_the_global_generators_alone():
    code = """
import random
import numpy as np
from alcore_sklearn.estimators import available
random.seed(0), np.random.seed(0)
before = random.getstate(), str(np.random.get_state())
available()
assert (random.getstate(), str(np.random.get_state())) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_list_is_of_scikit_learns_own_classifiers_and_regressors():
    classes = available()
    assert classes["sklearn.svm.SVC"] is SVC
    assert classes["sklearn.ensemble.RandomForestClassifier"] is RandomForestClassifier
    assert len(classes) > 80
    for name, cls in classes.items():
        assert cls.__module__.split(".")[0] == "sklearn"
        assert issubclass(cls, BaseEstimator)
        package, _, short = name.rpartition(".")
        assert getattr(sys.modules[package], short) is cls, "not the public name"
        assert full_name(short) == full_name(name) == name


@pytest.mark.parametrize("name", ["SVC", "sklearn.svm.SVC"])
def test_both_forms_of_a_name(name):
    made = build(name, {"C": 2.0, "gamma": "auto"})
    assert type(made) is SVC
    assert (made.C, made.gamma) == (2.0, "auto")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SCV", "did you mean .*SVC"),
        ("sklearn.svm.SVCC", "did you mean sklearn.svm.SVC"),
        ("sklearn.svm._classes.SVC", "did you mean sklearn.svm.SVC"),
        ("sklearn.linear_model.LogisticRegresion", "LogisticRegression"),
        ("sklearn.preprocessing.StandardScaler", "not a classifier or regressor of scikit-learn"),
        ("sklearn.cluster.KMeans", "not a classifier or regressor"),
        ("sklearn.pipeline.Pipeline", "not a classifier or regressor"),
        ("os.system", "no other class is made"),
        ("antigravity.Fly", "no other class is made"),
        ("", "not a classifier or regressor"),
    ],
)
def test_any_other_name_is_refused(name, near):
    available()  # which imports all of scikit-learn, whatever the name
    before = set(sys.modules)
    with pytest.raises(UsageError, match=near):
        build(name)
    assert "antigravity" not in sys.modules
    assert set(sys.modules) - before == set(), "something was imported because of a name"


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_estimator_names_outside_the_list_are_refused(text):
    try:
        made = build(text)
    except UsageError:
        return
    assert type(made) in available().values()


def test_faulty_parameters_are_told_at_once():
    with pytest.raises(UsageError, match=r"sklearn.svm.SVC has no parameter 'gama': did you mean 'gamma'\?"):
        build("SVC", {"gama": 1.0})
    with pytest.raises(UsageError, match=r"sklearn.svm.SVC: The 'C' parameter of SVC must be a float.*Got 'much'"):
        build("SVC", {"C": "much"})
    with pytest.raises(UsageError, match=r"OneVsRestClassifier needs its parameter 'estimator'"):
        build("OneVsRestClassifier")
    with pytest.raises(UsageError, match=r"'SCV' is not a classifier.*did you mean .*SVC"):
        build("OneVsRestClassifier", {"estimator": {"use": "SCV"}})


def test_estimators_inside_estimators():
    made = build("OneVsRestClassifier", {"estimator": {"use": "sklearn.svm.SVC", "C": 3.0}})
    assert type(made) is OneVsRestClassifier
    assert (type(made.estimator), made.estimator.C) == (SVC, 3.0)
    votes = build("VotingClassifier", {"estimators": [["a", {"use": "SVC"}], ["b", {"use": "LogisticRegression"}]]})
    assert type(votes) is VotingClassifier
    assert [(name, type(one)) for name, one in votes.estimators] == [("a", SVC), ("b", LogisticRegression)]


def test_lists_and_tables_that_are_no_estimators_stay():
    assert build("MLPClassifier", {"hidden_layer_sizes": [8, 4]}).hidden_layer_sizes == [8, 4]
    assert build("SVC", {"class_weight": {"a": 2.0}}).class_weight == {"a": 2.0}


def test_open_random_states_are_derived_from_the_seed_and_given_ones_stay():
    template = BaggingClassifier(LogisticRegression())
    one, same, other = seeded(template, 1), seeded(template, 1), seeded(template, 2)
    assert template.random_state is None
    assert one.random_state == same.random_state != other.random_state
    assert None is not one.estimator.random_state == same.estimator.random_state != one.random_state
    assert seeded(BaggingClassifier(random_state=7), 1).random_state == 7


def test_output_selects_the_method_of_a_classifier():
    assert output_of(LogisticRegression(), "auto", "it") == "probabilities"
    assert output_of(LogisticRegression(), "decision", "it") == "decision"
    assert output_of(build("LinearSVC"), "auto", "it") == "decision"
    assert output_of(build("GaussianNB"), "auto", "it") == "probabilities"
    with pytest.raises(UsageError, match=r"it with these parameters offers no decision, but probabilities"):
        output_of(build("GaussianNB"), "decision", "it")
    with pytest.raises(UsageError, match=r"neither predict_proba nor decision_function"):
        output_of(build("VotingClassifier", {"estimators": [["a", {"use": "SVC"}]], "voting": "hard"}), "auto", "it")


def test_a_stack_tells_what_it_offers_only_when_fitted():
    stack = build("StackingClassifier", {"estimators": [["a", {"use": "GaussianNB"}]], "cv": 2})
    assert not hasattr(stack, "predict_proba")
    assert output_of(stack, "auto", "it") == "probabilities"


def test_every_estimator_is_either_a_classifier_or_a_regressor():
    for cls in available().values():
        assert cls.__name__ not in ("MultiOutputClassifier", "ClassifierChain")
    assert is_classifier(build("SVC"))
    assert is_regressor(build("SVR"))


def test_values_are_described_by_plain_ones():
    given = {"a": [1, 2.0, (None, "x")], "b": {"c": True}, "d": np.float64(1.5), "e": np.arange(2)}
    assert plain(given) == {"a": [1, 2.0, [None, "x"]], "b": {"c": True}, "d": 1.5, "e": "<numpy.ndarray>"}
