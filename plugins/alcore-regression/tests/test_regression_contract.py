"""The parts of this plugin keep the contracts of alcore."""

from alcore_regression import EMCMQuery, GSxQuery, GSyQuery, IGSQuery, RegressionMetrology, VarianceQuery
from alcore_testing import ALL_TASKS, MetrologyContract, QueryContract

QUANTITIES = {"outputs": ("values", "posterior"), "tasks": ("regression",)}


class TestGSx(QueryContract):
    name = "gsx"
    outputs = ("binary", "classes", "posterior", "values", "map")
    tasks = ALL_TASKS
    streams = False

    def make(self, **parameters):
        return GSxQuery(**parameters)


class TestGSy(QueryContract):
    name = "gsy"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False

    def make(self, **parameters):
        return GSyQuery(**parameters)


class TestIGS(QueryContract):
    name = "igs"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False

    def make(self, **parameters):
        return IGSQuery(**parameters)


class TestEMCM(QueryContract):
    name = "emcm"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False
    seeded = True

    def make(self, **parameters):
        return EMCMQuery(**parameters)


class TestVariance(QueryContract):
    name = "variance"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    seeded = True

    def make(self, **parameters):
        return VarianceQuery(**parameters)


class TestRegression(MetrologyContract):
    name = "regression"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]

    def make(self, **parameters):
        return RegressionMetrology(**parameters)
