"""The learner keeps the contract of alcore; that of training loops is of those that use gradients."""

from alcore_gp import GaussianProcess
from alcore_testing import LearnerContract


class _GP(LearnerContract):
    trains = False
    tasks = ("regression",)
    kernel = "matern"

    def make(self, info):
        return GaussianProcess(self.kernel, starts=1, info=info)


class TestMatern(_GP):
    name = "gp"


class TestOfImages(_GP):
    kernel = "rbf"
    shape = (1, 3, 3)


class TestMixture(_GP):
    name = "gp"

    def make(self, info):
        return GaussianProcess(starts=1, search_labels=12, linear=True, info=info)


class TestNotFittedYet(LearnerContract):
    """The prior keeps the contract too."""

    trains = False
    is_fitted = False
    tasks = ("regression",)
    make = _GP.make
    kernel = "matern"
