"""Each strategy keeps the contract of query strategies."""

from alcore_diversity import (
    BADGEQuery,
    ClassBalancedQuery,
    ClusterMarginQuery,
    InformationDensityQuery,
    KCenterQuery,
    ProbCoverQuery,
    StratifiedQuery,
    StratifiedStart,
    TypiClustQuery,
)
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, QueryContract

TENSORS = tuple(outputs for outputs in ALL_OUTPUTS if outputs != "mapping")


class TestKCenter(QueryContract):
    name = "kcenter"
    outputs, tasks, streams = TENSORS, ALL_TASKS, False  # it looks at features

    def make(self, **parameters):
        return KCenterQuery(**parameters)


class TestBADGE(QueryContract):
    name = "badge"
    streams, seeded = False, True

    def make(self, **parameters):
        return BADGEQuery(**parameters)


class TestTypiClust(QueryContract):
    name = "typiclust"
    outputs, tasks, streams, seeded = TENSORS, ALL_TASKS, False, True

    def make(self, **parameters):
        return TypiClustQuery(**parameters)


class TestProbCover(QueryContract):
    name = "probcover"
    outputs, tasks, streams, seeded = TENSORS, ALL_TASKS, False, True

    def make(self, **parameters):
        return ProbCoverQuery(**parameters)


class TestClusterMargin(QueryContract):
    name = "cluster-margin"
    streams, seeded = False, True

    def make(self, **parameters):
        return ClusterMarginQuery(**parameters)


class TestInformationDensity(QueryContract):
    name = "density"
    streams = False

    def make(self, **parameters):
        return InformationDensityQuery(**parameters)


class TestClassBalanced(QueryContract):
    name = "class-balanced"
    streams = False

    def make(self, **parameters):
        return ClassBalancedQuery(**parameters)


class TestStratified(QueryContract):
    name = "stratified"
    streams, seeded = False, True

    def make(self, **parameters):
        return StratifiedQuery(**parameters)


class TestStratifiedStart(QueryContract):
    name = "stratified-start"
    outputs, streams, seeded, looks_up_answers = ALL_OUTPUTS, False, True, True  # it doesn't look at outputs

    def make(self, **parameters):
        return StratifiedStart(**parameters)
