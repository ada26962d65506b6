"""The parts of this plugin keep the contracts of alcore."""

import math
import statistics

import torch
from alcore_regression import ALCQuery, EMCMQuery, GSxQuery, GSyQuery, IGSQuery, MaxVarianceQuery, VarianceQuery
from alcore_testing import ALL_TASKS, QueryContract, assert_best_first

from alcore.inference import extract_features, labeled_features, labeled_targets


def predictions(outputs):
    """The prediction for each sample: floats."""
    return (outputs.double().mean(dim=0) if outputs.dim() == 3 else outputs.double()).flatten().tolist()


def farthest_first(driver, candidates, asked, layer, of):
    """Compare picks with the farthest from what is labeled and picked, by distances in inputs and output."""
    features = extract_features(driver, torch.tensor(candidates), layer)
    values = predictions(features.outputs) if driver.info.task == "regression" else [0.0] * len(candidates)
    rows = dict(zip(candidates, zip(features.features.tolist(), values, strict=True), strict=True))
    targets = labeled_targets(driver).targets.flatten().tolist()
    centers = list(zip(labeled_features(driver, layer).features.tolist(), targets, strict=True))
    if len(driver.pending()):
        waiting = extract_features(driver, driver.pending(), layer)
        expected = predictions(waiting.outputs) if driver.info.task == "regression" else [0.0] * len(waiting.ids)
        centers += zip(waiting.features.tolist(), expected, strict=True)
    for request in asked:
        scores = {
            other: min(of(math.dist(x, near), abs(y - value)) for near, value in centers)
            for other, (x, y) in rows.items()
        }
        assert_best_first([request], scores)
        centers.append(rows.pop(request.sample))


def ridge(x, y, rows):
    """Predictions of a linear model with an intercept, fitted by least squares with rows that stand for the penalty."""
    middle, level = x.mean(dim=0), y.mean(dim=0)
    penalty = 1e-3 * float((x - middle).square().sum()) / x.shape[1]
    more = penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.lstsq(torch.cat([x - middle, more]), torch.cat([y - level, 0 * more[:, :1]])).solution
    return (level + (rows - middle) @ weights).flatten()


QUANTITIES = {"outputs": ("values", "posterior"), "tasks": ("regression",)}


class TestGSx(QueryContract):
    name = "gsx"
    outputs = ("binary", "classes", "posterior", "values", "map")
    tasks = ALL_TASKS
    streams = False

    def make(self, **parameters):
        return GSxQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        farthest_first(driver, candidates, asked, "inputs", lambda x, _: x)


class TestGSy(QueryContract):
    name = "gsy"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False

    def make(self, **parameters):
        return GSyQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        farthest_first(driver, candidates, asked, "inputs", lambda _, y: y)


class TestIGS(QueryContract):
    name = "igs"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False

    def make(self, **parameters):
        return IGSQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        farthest_first(driver, candidates, asked, "inputs", lambda x, y: x * y)


class TestEMCM(QueryContract):
    name = "emcm"
    counts_pending = False  # but where nothing is labeled
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False
    seeded = True

    def make(self, **parameters):
        return EMCMQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        """The mean length of the gradient, with ridge regressions solved by least squares in place of the formula."""
        unlabeled, labeled = extract_features(driver, torch.tensor(candidates)), labeled_features(driver)
        strategy = driver.query_strategies[0]
        drawn = torch.randint(len(labeled.ids), (4, len(labeled.ids)), generator=strategy.generator("bootstrap"))
        rows = unlabeled.features.double()
        answers = [ridge(labeled.features[draw].double(), labeled.targets[draw].double().reshape(-1, 1), rows)
                   for draw in drawn]  # fmt: skip
        predicted = predictions(unlabeled.outputs)
        scores = {}
        for place, one in enumerate(candidates):
            gaps = [abs(predicted[place] - float(answer[place])) for answer in answers]
            scores[one] = math.fsum(gaps) / len(gaps) * math.sqrt(1 + float(rows[place].square().sum()))
        assert_best_first(asked, scores, rtol=1e-6)


class TestVariance(QueryContract):
    name = "variance"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    seeded = True

    def make(self, **parameters):
        return VarianceQuery(**parameters)

    def oracle(self, driver, candidates, asked):
        """Of posterior samples that the learner returns; those of dropout are the strategy's own."""
        outputs = driver.infer(driver.train_datapool.inputs(torch.tensor(candidates)))
        if outputs.dim() == 3:
            columns = outputs.squeeze(2).t().tolist()
            assert_best_first(asked, dict(zip(candidates, map(statistics.pvariance, columns), strict=True)), rtol=1e-4)


class TestMaxVariance(QueryContract):
    name = "max-variance"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False
    seeded = True

    def make(self, **parameters):
        return MaxVarianceQuery(**{"draws": 3} | parameters)  # few, so that the picks depend on the masks


class TestALC(QueryContract):
    name = "alc"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]
    streams = False
    seeded = True

    def make(self, **parameters):
        return ALCQuery(**parameters)
