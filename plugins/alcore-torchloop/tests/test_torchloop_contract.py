"""The default loop keeps the contract of training loops."""

from alcore_testing import TrainingLoopContract
from alcore_torchloop import DefaultTrainingLoop


class TestDefaultTrainingLoop(TrainingLoopContract):
    name = "default"

    def make(self, **parameters):
        return DefaultTrainingLoop(**parameters)


class TestSteppedEachBatch(TrainingLoopContract):
    def make(self, **parameters):
        return DefaultTrainingLoop(schedule="batch", **parameters)


class TestClipped(TrainingLoopContract):
    plain = False

    def make(self, **parameters):
        return DefaultTrainingLoop(clip_norm=0.1, **parameters)


class TestMixedPrecision(TrainingLoopContract):
    plain = False

    def make(self, **parameters):
        return DefaultTrainingLoop(amp="bf16", **parameters)
