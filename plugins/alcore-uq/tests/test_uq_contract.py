"""Each measure of uncertainty keeps the contract of query strategies."""

import math

import torch
from alcore_testing import QueryContract, assert_best_first
from alcore_uq import ClassifierUQQuery


def probabilities(logits, kind, temperature):
    """Class probabilities of one prediction, of two classes at least."""
    if kind == "probabilities":
        logits = [math.log(share) for share in (logits if len(logits) > 1 else [1 - logits[0], logits[0]])]
    logits = [logit / temperature for logit in (logits if len(logits) > 1 else [0.0, logits[0]])]
    shifted = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / math.fsum(shifted) for weight in shifted]


class _Uncertain(QueryContract):
    outputs = ("binary", "classes", "posterior", "map")
    temperature, reduce = 1.0, "mean"

    def oracle(self, driver, candidates, asked):
        """One prediction at a time; one column is ranked as the probabilities are, by another score."""
        outputs, kind = driver.infer(driver.choice_pool.inputs(torch.tensor(candidates))), driver.learner.outputs
        scores = {}
        for place, one in enumerate(candidates):
            if outputs.dim() == 3:
                members = [probabilities(member[place].tolist(), kind, self.temperature) for member in outputs]
                scores[one] = self.measure([math.fsum(column) / len(column) for column in zip(*members, strict=True)])
                continue
            positions = outputs[place].reshape(1 if outputs.dim() == 1 else outputs.shape[1], -1).t().tolist()
            measures = [self.measure(probabilities(position, kind, self.temperature)) for position in positions]
            scores[one] = max(measures) if self.reduce == "max" else math.fsum(measures) / len(measures)
        if outputs.dim() < 3 and outputs[0].numel() == 1:
            asked = [request._replace(score=None) for request in asked]
        assert_best_first(asked, scores, rtol=1e-5, atol=1e-6)

    def measure(self, p):
        return -math.fsum(share * math.log(share) for share in p)


class TestLeastConfidence(_Uncertain):
    name = "uq"

    def make(self, **parameters):
        return ClassifierUQQuery(**parameters)

    def measure(self, p):
        return 1 - max(p)


class TestMargin(_Uncertain):
    def make(self, **parameters):
        return ClassifierUQQuery(measure="margin", **parameters)

    def measure(self, p):
        second, first = sorted(p)[-2:]
        return second - first


class TestEntropy(_Uncertain):
    def make(self, **parameters):
        return ClassifierUQQuery(measure="entropy", **parameters)


class TestTemperature(_Uncertain):
    temperature, reduce = 2.0, "max"

    def make(self, **parameters):
        return ClassifierUQQuery(measure="entropy", temperature=2.0, reduce="max", **parameters)
