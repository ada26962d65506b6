"""Cohen's kappa, parameters, and what the plugin offers."""

import math

import pytest
import torch
from alcore_stopping import Budget, Confident, StabilizingPredictions, cohen_kappa
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from alcore import UsageError

classes_of = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(classes_of)
def test_kappa_is_that_of_scikit_learn(pairs):
    first, second = torch.tensor(pairs).unbind(1)
    kappa = cohen_kappa(first, second)
    if len({*first.tolist(), *second.tolist()}) == 1:
        assert kappa == 0  # scikit-learn has NaN: agreement on one class says nothing
    else:
        assert kappa == pytest.approx(cohen_kappa_score(first.numpy(), second.numpy()), abs=1e-12)


def test_parameters():
    for threshold in (0, -1, 1.5, math.nan):
        with pytest.raises(UsageError, match="threshold is"):
            Confident(threshold)
        with pytest.raises(UsageError, match="threshold is"):
            StabilizingPredictions(threshold)
    with pytest.raises(UsageError, match="window is 0"):
        StabilizingPredictions(window=0)
    with pytest.raises(UsageError, match="size is 0"):
        StabilizingPredictions(size=0)
    with pytest.raises(UsageError, match=r"--set stop\.budget\.labels=100"):
        Budget()
    with pytest.raises(UsageError, match="labels is -1"):
        Budget(labels=-1)
    for cost in (-1, math.nan, math.inf):
        with pytest.raises(UsageError, match="cost is"):
            Budget(cost=cost)


def test_plugin_offers_its_parts_by_name():
    import alcore_stopping

    from alcore import plugins

    registry = plugins.installed()
    assert registry.make("stop", "metric", threshold=0.5).threshold == 0.5
    assert registry.make("stop", "plateau", patience=2).patience == 2
    assert registry.make("stop", "confident", threshold=0.2).threshold == 0.2
    assert registry.make("stop", "stabilizing-predictions", window=2).window == 2
    assert registry.make("stop", "budget", labels=3).labels == 3
    assert all(hasattr(alcore_stopping, name) for name in alcore_stopping.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alcore_stopping.nothing
