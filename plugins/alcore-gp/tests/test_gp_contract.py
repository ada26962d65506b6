"""The learner keeps the contract of alcore; that of training loops is of those that use gradients."""

import torch
from alcore_gp import GaussianProcess, GPTrainingLoop
from alcore_testing import LearnerContract
from alcore_testing.learner import pool_of


class _GP(LearnerContract):
    trains = False
    tasks = ("regression",)
    loop = GPTrainingLoop()
    kernel = "matern"

    def make(self, info):
        return GaussianProcess(self.kernel, starts=1, info=info)

    def made(self, task, seed=0):
        learner, pool = super().made(task, seed), pool_of(task, self.shape)
        learner.fit([pool.batch(torch.arange(len(pool)))], torch.Generator().manual_seed(0))
        return learner


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
    tasks = ("regression",)
    loop = GPTrainingLoop()
    make = _GP.make
    kernel = "matern"
