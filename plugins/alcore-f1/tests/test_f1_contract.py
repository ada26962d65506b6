"""F1 keeps the contract of metrology strategies."""

from alcore_f1 import F1Metrology
from alcore_testing import MetrologyContract


class TestF1Metrology(MetrologyContract):
    name = "f1"

    def make(self, **parameters):
        return F1Metrology(**parameters)
