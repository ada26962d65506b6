"""Labels by id keep the contract of label strategies."""

from alcore_dummy import DummyLabelStrategy
from alcore_testing import LabelContract


class TestDummyLabelStrategy(LabelContract):
    name = "dummy"
    one_by_one, batch = False, True  # its labels cost nothing, and are delivered together
    idempotent = True

    def make(self, **parameters):
        return DummyLabelStrategy(**parameters)
