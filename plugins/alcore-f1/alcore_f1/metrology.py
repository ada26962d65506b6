"""Precision, recall and F1 from counts of each class that are summed over chunks."""

from __future__ import annotations

import math
from typing import Any

import torch

from alcore.errors import UsageError, did_you_mean
from alcore.inference import evaluate
from alcore.outputs import check_outputs, is_binary, kind_of, predicted_classes
from alcore.pools import is_choosable
from alcore.strategies import BaseMetrology


class F1Metrology(BaseMetrology):
    """Measure precision, recall and F1 of the learner.

    Parameters
    ----------
    positive
        The positive one of two classes, by name or, if no class has that name, by number; class 1 if it is not given.
        It must not be given for more than two classes: then the metrics are macro averages, and those of each class
        are recorded too.

    Notes
    -----
    Each record holds ``step``, ``train_samples``, ``on`` (``"validation"``, ``"pool"`` or ``"train"``),
    ``precision``, ``recall``, ``f1``, ``accuracy``, ``samples``, and ``positive`` or ``per_class``.
    With true positives TP, false positives FP and false negatives FN: precision = TP / (TP + FP),
    recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN); 0 where the denominator is 0
    (van Rijsbergen, Information Retrieval, 1979). Memory is O(chunk + classes).
    """

    def __init__(self, positive: str | int | None = None) -> None:
        super().__init__()
        self.positive = positive

    def check(self) -> None:
        """Raise `UsageError` for regression, outputs that are not a classifier's, and an unknown positive class."""
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError(
                "F1 is for classification, and the task of this data is regression; use another metrology strategy."
            )
        if info is not None:
            self._positive_class(max(info.classes, 2))
        if is_choosable(self.driver.choice_pool) and (outputs := self.driver.probe()) is not None:
            self._positive_class(self._classes(check_outputs(outputs)))

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        kind = kind_of(self.driver.learner)
        on, batches = evaluate(self.driver)
        counts: torch.Tensor | None = None
        for outputs, targets in batches:
            if counts is None:
                counts = torch.zeros(3, self._classes(outputs), dtype=torch.int64)
            counts += self._count(predicted_classes(outputs, kind).cpu(), targets.cpu(), counts.shape[1])
        if counts is None:
            raise UsageError("F1Metrology: there is no sample to measure on.")
        self.append_record(on=on, **self._metrics(counts))

    def _classes(self, outputs: torch.Tensor) -> int:
        columns = 2 if is_binary(outputs) else max(int(outputs.shape[-1]), 2)
        return max(columns, self.driver.info.classes if self.driver.info else 2)

    @staticmethod
    def _count(predicted: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
        """Return how often each class was predicted correctly, occurs, and was predicted: int64, shape (3, C)."""
        truth = targets.reshape(-1)
        if len(truth) != len(predicted):
            raise UsageError(f"F1Metrology: {len(predicted)} predictions for targets of shape {tuple(targets.shape)}.")
        codes = truth.long()
        low, high = torch.aminmax(codes) if len(codes) else (0, 0)
        if low < 0 or high >= classes or (truth.is_floating_point() and not torch.equal(codes.to(truth.dtype), truth)):
            raise UsageError(f"F1Metrology: targets must be classes 0 to {classes - 1}, and one is not.")
        return torch.stack(
            [torch.bincount(values, minlength=classes) for values in (codes[codes == predicted], codes, predicted)]
        )

    def _metrics(self, counts: torch.Tensor) -> dict[str, Any]:
        hits, true, predicted = counts.tolist()
        total, classes = sum(true), len(true)
        precision = [_ratio(hit, n) for hit, n in zip(hits, predicted, strict=True)]
        recall = [_ratio(hit, n) for hit, n in zip(hits, true, strict=True)]
        f1 = [_ratio(2 * hit, n + m) for hit, n, m in zip(hits, true, predicted, strict=True)]
        common = {"accuracy": _ratio(sum(hits), total), "samples": total}
        positive = self._positive_class(classes)
        if classes == 2:
            metrics = {"precision": precision[positive], "recall": recall[positive], "f1": f1[positive]}
            return metrics | common | {"positive": self._name(positive)}
        metrics = {
            name: math.fsum(values) / classes
            for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
        }
        each = [
            {"class": self._name(i), "precision": precision[i], "recall": recall[i], "f1": f1[i], "samples": true[i]}
            for i in range(classes)
        ]
        return metrics | common | {"per_class": each}

    def _name(self, number: int) -> str:
        names = self.driver.info.names if self.driver.info else ()
        return names[number] if number < len(names) else str(number)

    def _positive_class(self, classes: int) -> int:
        if self.positive is None:
            return 1
        names = [self._name(number) for number in range(classes)]
        if classes != 2:
            raise UsageError(f"positive={self.positive!r} is for two classes, and there are {classes}; leave it out.")
        for choices in (names, [str(number) for number in range(classes)]):
            if str(self.positive) in choices:
                return choices.index(str(self.positive))
        raise UsageError(f"there is no class {self.positive!r}: {did_you_mean(str(self.positive), names)}.")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
