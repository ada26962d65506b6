"""The moons keep the contract of pools, and the MLP that of learners."""

from alcore_moons import mlp, moons
from alcore_testing import LearnerContract, PoolContract

from alcore import UsageError


class TestMoonsPool(PoolContract):
    name = "moons"

    def data(self):
        return moons(60, initial=0.2)


class TestMLP(LearnerContract):
    name = "mlp"

    def make(self, info):
        return mlp(info)


class TestMLPForImages(LearnerContract):
    shape = (1, 4, 4)

    def make(self, info):
        return mlp(info, hidden=(8, 8), dropout=0.2)


class TestMLPForRegression(LearnerContract):
    tasks = ("regression",)

    def make(self, info):
        if info.task != "regression":
            raise UsageError("this class is about regression")
        return mlp(info, hidden=(8,), dropout=0.2)
