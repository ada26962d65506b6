"""The metrology strategies keep the contract of alcore, and their figures are those of plain loops."""

import math

import torch
from alcore_metrics import ClassificationMetrology, FieldsMetrology, RegressionMetrology, UncertaintyMetrology
from alcore_testing import MetrologyContract


class TestClassification(MetrologyContract):
    name = "classification"

    def make(self, **parameters):
        return ClassificationMetrology(**parameters)

    def oracle(self, outputs, targets, kind):
        """Sample by sample, and pair by pair."""
        rows, true = probabilities(outputs.double(), kind, len(targets)), targets.tolist()
        predicted = [row.index(max(row)) for row in rows]
        classes = range(len(rows[0]))
        recalls = [mean([f == c for f, y in zip(predicted, true, strict=True) if y == c]) for c in classes if c in true]
        rankings = [auroc([row[c] for row in rows], [y == c for y in true]) for c in classes]
        precisions = [average_precision([row[c] for row in rows], [y == c for y in true]) for c in classes]
        squares = [sum((row[c] - (y == c)) ** 2 for c in classes) for row, y in zip(rows, true, strict=True)]
        two = len(classes) == 2
        return {
            "accuracy": mean([f == y for f, y in zip(predicted, true, strict=True)]),
            "balanced_accuracy": mean(recalls),
            "log_loss": mean([-math.log(row[y]) for row, y in zip(rows, true, strict=True)]),
            "brier": mean(squares) / (2 if two else 1),
            "ece": calibration_error(
                [max(row) for row in rows], [f == y for f, y in zip(predicted, true, strict=True)]
            ),
            "auroc": rankings[1] if two else mean(rankings),
            "average_precision": precisions[1] if two else mean(precisions),
            "confusion": [
                [sum(y == i and f == j for f, y in zip(predicted, true, strict=True)) for j in classes] for i in classes
            ],
            "samples": len(true),
        }


QUANTITIES = {"outputs": ("values", "posterior"), "tasks": ("regression",)}


class TestRegression(MetrologyContract):
    name = "regression"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]

    def make(self, **parameters):
        return RegressionMetrology(**parameters)

    def oracle(self, outputs, targets, kind):
        """One sample at a time."""
        true = targets.flatten().tolist()
        members = [member.flatten().tolist() for member in (outputs if outputs.dim() == 3 else [outputs])]
        columns = list(zip(*members, strict=True))
        predicted = [mean(column) for column in columns]
        errors = [one - other for one, other in zip(predicted, true, strict=True)]
        squares, middle = math.fsum(error**2 for error in errors), mean(true)
        figures = {
            "rmse": math.sqrt(squares / len(true)),
            "mae": mean(list(map(abs, errors))),
            "r2": 1 - squares / math.fsum((value - middle) ** 2 for value in true),
            "max_error": max(map(abs, errors)),
            "samples": len(true),
        }
        if outputs.dim() < 3:
            return figures
        spread = [math.fsum((value - middle) ** 2 for value in column) / len(column) + 1e-6
                  for column, middle in zip(columns, predicted, strict=True)]  # fmt: skip
        terms = [(math.log(2 * math.pi * v) + error**2 / v) / 2 for v, error in zip(spread, errors, strict=True)]
        return figures | {"nll": mean(terms)}


class TestFields(MetrologyContract):
    """A single quantity is a field of one value."""

    name = "fields"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]

    def make(self, **parameters):
        return FieldsMetrology(**parameters)

    def oracle(self, outputs, targets, kind):
        """One sample at a time."""
        true = targets.flatten().tolist()
        members = [member.flatten().tolist() for member in (outputs if outputs.dim() == 3 else [outputs])]
        predicted = map(mean, zip(*members, strict=True))
        errors = sorted(abs(f - y) / abs(y) for f, y in zip(predicted, true, strict=True))
        worst = errors[math.ceil(0.95 * len(errors)) - 1]
        return {"relative_l2": mean(errors), "p95_relative_l2": worst, "samples": len(true)}


class TestClassificationOnUnlabeled(TestClassification):
    """It measures on unlabeled samples in the runs of the contract, also when they are resumed."""

    name, oracle = None, None

    def make(self, **parameters):
        return ClassificationMetrology("unlabeled", **parameters)

    test_records_say_what_was_measured_on = None
    test_what_it_is_given_is_not_written_to = None


def mean(values):
    return math.fsum(values) / len(values)


def probabilities(outputs, kind, size):
    """Rows of probabilities: two columns for one, the mean of posterior samples."""
    outputs = outputs if outputs.dim() == 3 else outputs.reshape(1, size, -1)
    if outputs.shape[2] == 1:
        outputs = torch.cat([0 * outputs if kind == "logits" else 1 - outputs, outputs], dim=2)
    return (outputs.softmax(dim=2) if kind == "logits" else outputs).mean(dim=0).tolist()


def auroc(scores, of_class):
    inside, outside = ([s for s, y in zip(scores, of_class, strict=True) if y == side] for side in (True, False))
    return mean([(s > t) + (s == t) / 2 for s in inside for t in outside])


def average_precision(scores, of_class):
    """The mean, over the samples of the class, of the precision at their score."""
    pairs = list(zip(scores, of_class, strict=True))
    at = [[y for other, y in pairs if other >= s] for s, inside in pairs if inside]
    return mean([mean(ranked) for ranked in at])


def calibration_error(confidences, right, bins=15):
    """Bin by bin."""
    total = 0.0
    for place in range(bins):
        rows = [row for row, c in enumerate(confidences) if place / bins < c <= (place + 1) / bins]
        total += abs(sum(right[row] for row in rows) - sum(confidences[row] for row in rows))
    return total / len(right)


class TestUncertainty(MetrologyContract):
    name = "uncertainty"
    outputs, tasks = QUANTITIES["outputs"], QUANTITIES["tasks"]

    def make(self, **parameters):
        return UncertaintyMetrology(**parameters)

    def oracle(self, outputs, targets, kind):
        """One sample at a time, with the error function of the standard library."""
        if outputs.dim() < 3:
            return {"samples": len(targets)}  # the samples of dropout are the strategy's own
        terms = []
        for y, column in zip(targets.flatten().tolist(), zip(*outputs[:, :, 0].tolist(), strict=True), strict=True):
            m = mean(column)
            s = math.sqrt(math.fsum((value - m) ** 2 for value in column) / len(column) + 1e-6)
            z = (y - m) / s
            density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), (1 + math.erf(z / math.sqrt(2))) / 2
            crps = s * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))
            terms.append((math.log(2 * math.pi * s * s) / 2 + z * z / 2, crps, abs(z) <= 1.6448536269514722, s))
        nll, crps, coverage, deviation = (mean(terms_of_figure) for terms_of_figure in zip(*terms, strict=True))
        width = 2 * 1.6448536269514722 * deviation
        return {"nll": nll, "crps": crps, "coverage": coverage, "width": width, "samples": len(terms)}
