"""Labels by id keep the contract of label strategies."""

from alcore_dummy import DummyLabelStrategy
from alcore_testing import ImmediateLabelContract


class TestDummyLabelStrategy(ImmediateLabelContract):
    name = "dummy"

    def make(self, **parameters):
        return DummyLabelStrategy(**parameters)
