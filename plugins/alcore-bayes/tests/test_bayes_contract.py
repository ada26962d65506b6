"""Each strategy keeps the contract of query strategies, with samples of MC dropout and with a learner's own."""

import torch
from alcore_bayes import (
    BALDQuery,
    BatchBALDQuery,
    CommitteeQuery,
    MeanStdQuery,
    PowerBALDQuery,
    VariationRatioQuery,
)
from alcore_testing import QueryContract, toy_learner


class Dropout(QueryContract):
    """With a learner whose dropout layer gives the posterior samples, unless it returns its own."""

    seeded = True  # the masks are drawn
    strategy: type

    def make(self, **parameters):
        return self.strategy(samples=2, **parameters)


class Own(QueryContract):
    """With a learner that has no dropout: what it returns must be posterior samples."""

    outputs = ("posterior",)
    strategy: type

    def make(self, **parameters):
        return self.strategy(**parameters)

    def learner(self, case):
        learner = toy_learner(case)
        for module in learner.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return learner


class TestBALDByDropout(Dropout):
    name, strategy = "bald", BALDQuery


class TestBatchBALDByDropout(Dropout):
    name, strategy, streams = "batchbald", BatchBALDQuery, False


class TestPowerBALDByDropout(Dropout):
    name, strategy = "powerbald", PowerBALDQuery


class TestSoftrankBALD(Own):
    streams, seeded = False, True

    def make(self, **parameters):
        return PowerBALDQuery(noise="softrank", **parameters)


class TestCommittee(Own):
    name, strategy = "qbc", CommitteeQuery


class TestVariationRatio(Own):
    name, strategy = "variation-ratio", VariationRatioQuery


class TestMeanStd(Own):
    name, strategy = "mean-std", MeanStdQuery
