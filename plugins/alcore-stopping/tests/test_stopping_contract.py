"""The stop criteria keep the contract of alcore."""

from typing import ClassVar

import torch
from alcore_stopping import Budget, Confident, MetricReached, Plateau, StabilizingPredictions
from alcore_testing import StopCriterionContract

from alcore.strategies import BaseMetrology


class Rising(BaseMetrology):
    """Measures 0.1 more each step."""

    def compute(self, *args, **kwargs):
        self.append_record(level=self.driver.active_learning_step_idx / 10)


class TestMetricReached(StopCriterionContract):
    name = "metric"
    required_parameters = ("threshold",)
    stops_with: ClassVar = {"threshold": 0.2, "name": "level"}
    continues_with: ClassVar = {"threshold": 0.9, "name": "level"}

    def make(self, **parameters):
        return MetricReached(**parameters)

    def metrology(self):
        return [Rising()]


class TestPlateau(StopCriterionContract):
    name = "plateau"
    stops_with: ClassVar = {"patience": 2, "name": "level", "mode": "min"}
    continues_with: ClassVar = {"patience": 2, "name": "level"}

    def make(self, **parameters):
        return Plateau(**parameters)

    def metrology(self):
        return [Rising()]


class Surer(StopCriterionContract):
    """What the learner predicts stays as it is, and it becomes surer of it each step."""

    def build(self, folder, *criteria, **settings):
        driver = super().build(folder, *criteria, **settings)

        def certain(_learner, inputs):
            classes = (inputs[:, :1] * 3).long() % 3
            return driver.active_learning_step_idx * torch.eye(3)[classes[:, 0]]

        driver.inference_fn = certain
        return driver


class TestConfident(Surer):
    name = "confident"
    stops_with: ClassVar = {"threshold": 0.3}
    continues_with: ClassVar = {"threshold": 0.01}

    def make(self, **parameters):
        return Confident(**parameters)


class TestStabilizingPredictions(Surer):
    name = "stabilizing-predictions"
    stops_with: ClassVar = {"window": 2}
    continues_with: ClassVar = {"window": 5}

    def make(self, **parameters):
        return StabilizingPredictions(**parameters)


class TestBudget(StopCriterionContract):
    name = "budget"
    stops_with: ClassVar = {"labels": 5}
    continues_with: ClassVar = {"labels": 100}

    def make(self, **parameters):
        return Budget(**parameters)
