"""The strategy ``ask`` waits for as many answers as it is told to."""

from types import SimpleNamespace

import pytest
from alcore_labelers import AskLabelStrategy

from alcore.errors import UsageError, Waiting
from alcore.protocols import LabelingProgress


def label(requested, answered, **parameters):
    strategy = AskLabelStrategy(**parameters)
    strategy.attach(SimpleNamespace(active_learning_step_idx=4))
    strategy.label(None, SimpleNamespace(progress=lambda: LabelingProgress(requested, answered)))


@pytest.mark.parametrize(
    ("requested", "answered", "least"), [(3, 3, None), (0, 0, None), (3, 2, 2), (3, 3, 9), (3, 0, 0)]
)
def test_it_goes_on_where_enough_is_answered(requested, answered, least):
    label(requested, answered, min_labels=least)


def test_it_says_what_it_waits_for():
    with pytest.raises(Waiting, match=r"^2 of 3 requests of step 4 are answered$") as waits:
        label(3, 2, max_wait=60)
    assert waits.value.max_wait == 60
    with pytest.raises(Waiting, match="and 2 are enough"):
        label(3, 1, min_labels=2)


@pytest.mark.parametrize("parameters", [{"min_labels": -1}, {"max_wait": -1.0}, {"max_wait": float("nan")}])
def test_wrong_parameters_are_named(parameters):
    with pytest.raises(UsageError, match=f"{next(iter(parameters))} is"):
        AskLabelStrategy(**parameters)
