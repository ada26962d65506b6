"""Each strategy keeps the contract of query strategies, with samples of MC dropout and with a learner's own."""

import math

import numpy as np
import scipy.stats
import torch
from alcore_bayes import (
    BALDQuery,
    BatchBALDQuery,
    CommitteeQuery,
    MeanStdQuery,
    PowerBALDQuery,
    VariationRatioQuery,
)
from alcore_testing import QueryContract, assert_best_first, toy_learner

from alcore.inference import outputs_of
from alcore.outputs import posterior_probabilities


def posteriors(driver, candidates):
    """Class probabilities of each posterior sample, by id: lists of lists of floats."""
    outputs = outputs_of(driver, torch.tensor(candidates)).outputs
    p = posterior_probabilities(outputs.double(), driver.learner.outputs)
    return dict(zip(candidates, p.transpose(0, 1).tolist(), strict=True))


def mean_of(members):
    return [math.fsum(column) / len(members) for column in zip(*members, strict=True)]


def entropy(p):
    return -math.fsum(share * math.log(share) for share in p if share > 0)


def votes(members):
    best = [max(range(len(p)), key=lambda label: (p[label], -label)) for p in members]
    return [best.count(label) / len(members) for label in range(len(members[0]))]


def information(members):
    return entropy(mean_of(members)) - math.fsum(map(entropy, members)) / len(members)


def joint_information(batch):
    """What the classes of a batch say together about which member is right, from all their combinations."""
    joint = np.ones((len(batch[0]), 1))  # of each member, the probability of each combination
    for shares in batch:
        joint = (joint[:, :, None] * np.array(shares)[:, None, :]).reshape(len(joint), -1)
    return scipy.stats.entropy(joint.mean(axis=0)) - scipy.stats.entropy(joint, axis=1).mean()


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

    def oracle(self, driver, candidates, asked):
        shares = posteriors(driver, candidates)
        assert_best_first(asked, {one: self.measure(members) for one, members in shares.items()}, rtol=1e-6)

    def measure(self, members):
        return information(members)

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


class TestBALD(Own):
    strategy = BALDQuery


class TestBatchBALD(Own):
    streams = False

    def make(self, **parameters):
        return BatchBALDQuery(num_samples=20_000, **parameters)  # all configurations of 8 samples

    def oracle(self, driver, candidates, asked):
        waiting = driver.pending().tolist()
        shares = posteriors(driver, candidates)
        chosen = list(posteriors(driver, waiting).values()) if waiting else []
        before = joint_information(chosen) if chosen else 0.0
        for request in asked:
            gains = {other: joint_information([*chosen, members]) - before for other, members in shares.items()}
            assert_best_first([request], gains, rtol=1e-6, atol=1e-8)
            chosen.append(shares.pop(request.sample))
            before = joint_information(chosen)


class TestSoftrankBALD(Own):
    streams, seeded = False, True

    def oracle(self, driver, candidates, asked):
        shares = posteriors(driver, candidates)
        ranked = sorted(shares, key=lambda one: -information(shares[one]))
        draws = torch.rand(len(shares), generator=driver.query_strategies[0].generator("noise"), dtype=torch.float64)
        noise = dict(zip(candidates, draws.tolist(), strict=True))
        scores = {one: -math.log(rank) - math.log(-math.log(noise[one])) for rank, one in enumerate(ranked, 1)}
        assert_best_first(asked, scores)

    def make(self, **parameters):
        return PowerBALDQuery(noise="softrank", **parameters)


class TestCommittee(Own):
    name, strategy = "qbc", CommitteeQuery

    def measure(self, members):
        return entropy(votes(members))


class TestVariationRatio(Own):
    name, strategy = "variation-ratio", VariationRatioQuery

    def measure(self, members):
        return 1 - max(votes(members))


class TestMeanStd(Own):
    name, strategy = "mean-std", MeanStdQuery

    def measure(self, members):
        spread = [math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
                  for column, mean in zip(zip(*members, strict=True), mean_of(members), strict=True)]  # fmt: skip
        return math.fsum(spread) / len(spread)
