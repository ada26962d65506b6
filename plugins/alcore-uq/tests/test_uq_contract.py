"""Each measure of uncertainty keeps the contract of query strategies."""

from alcore_testing import QueryContract
from alcore_uq import ClassifierUQQuery


class _Uncertain(QueryContract):
    outputs = ("binary", "classes", "posterior", "map")


class TestLeastConfidence(_Uncertain):
    name = "uq"

    def make(self, **parameters):
        return ClassifierUQQuery(**parameters)


class TestMargin(_Uncertain):
    def make(self, **parameters):
        return ClassifierUQQuery(measure="margin", **parameters)


class TestEntropy(_Uncertain):
    def make(self, **parameters):
        return ClassifierUQQuery(measure="entropy", **parameters)


class TestTemperature(_Uncertain):
    def make(self, **parameters):
        return ClassifierUQQuery(measure="entropy", temperature=2.0, reduce="max", **parameters)
