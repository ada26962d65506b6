"""Accuracy, ranking, calibration and confusion of a classifier, over chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from alcore.errors import UsageError
from alcore.inference import MeasuredOn, evaluate
from alcore.outputs import check_outputs, class_probabilities, kind_of, predicted_classes
from alcore.pools import is_choosable
from alcore_metrics.base import MetricsBase, check_count
from alcore_metrics.groups import Groups, check_number
from alcore_metrics.sample import Array, RowSample
from alcore_metrics.values import refuse_bad_outputs

_OWNER = "ClassificationMetrology"
_LARGEST_MATRIX = 100  # classes; the matrix of 1000 would add megabytes to the database in each step
_MOST_ODDS = 1000.0  # beyond log-odds of any probability in double precision but 0 and 1
_OFF = 0.02  # how far the sum of a sample's probabilities may be from 1: that of 100 classes in bfloat16 is


class ClassificationMetrology(MetricsBase):
    """Measure accuracy, ranking, calibration and confusion of a classifier, for each class, and for groups.

    Parameters
    ----------
    on
        ``"validation"``, ``"pool"``, ``"train"`` (the labeled samples) or ``"unlabeled"`` (samples that may still be
        asked for, where the pool knows their answers); if not given, the first of the first three that there is. See
        `alcore.inference.evaluate`.
    bins
        Number of bins of the calibration error.
    groups
        Measure groups of samples too: the name of a column of the data, or in Python a mapping from sample id to group.
        Ids are those of the pool that is measured on; samples that it does not name are in no group.
    max_scores
        Most probabilities in memory for ``auroc`` and ``average_precision`` (samples times classes). Where there are
        more, samples are drawn at random, and the record says how many (``ranked_samples``); 0 leaves them out.

    Raises
    ------
    UsageError
        Before step 0 for regression, outputs that are not a classifier's or have fewer columns than the data has
        classes, a column of groups that is not there, and if there is nothing of what `on` says; for targets that are
        not classes, and probabilities that are none.
    AlcoreError
        If an output is NaN.

    Notes
    -----
    Each record holds ``step``, ``train_samples``, ``on``, ``samples``, and with the probabilities p of a sample, its
    class y and the predicted class f, the most likely one:

    - ``accuracy``: the share of f = y; ``balanced_accuracy``: the mean of the recall over the classes that occur.
    - ``auroc``: the probability that a sample of a class has a higher p of that class than one of another (Fawcett
      2006); ``average_precision``: the sum of (R_n - R_(n-1)) P_n over thresholds. Of two classes those of class 1; of
      more the mean over the classes that can be ranked, one against the rest: those of some samples, but not of all.
      NaN where no class can.
    - ``log_loss``: the mean of -log p_y, with p of at least 2.2e-16, so at most 36.04.
    - ``brier``: the mean of the sum over the classes of (p_c - [y = c])^2, from 0 to 2; of two classes half of it, the
      squared error of p_1, from 0 to 1 (Brier 1950).
    - ``ece``: the sum over bins of the share of samples in a bin times the distance of accuracy and mean p_f there;
      bin i of M has p_f in (i/M, (i + 1)/M] (Guo et al., On calibration of modern neural networks, ICML 2017).
    - ``per_class``: a list with ``class``, ``precision``, ``recall``, ``f1``, ``samples`` (the support), ``auroc`` and
      ``average_precision`` of each class; precision, recall and F1 are 0 where their denominator is.
    - ``confusion``: up to 100 classes, the number of samples of class i (row) that were predicted as j (column).
    - ``per_group``: a list with ``group``, ``samples``, ``accuracy``, ``balanced_accuracy``, ``log_loss``, ``brier``
      and ``ece`` of each group, in the order of their names.

    Of posterior samples (K, B, C) the mean probability counts. If ``"unlabeled"`` samples have run out, ``samples`` is
    0 and the rest is missing. Scikit-learn computes all but ``ece``. Memory is O(chunk + `max_scores`), and one count
    for each pair of a true and a predicted class that occurs.
    """

    def __init__(
        self,
        on: MeasuredOn | None = None,
        bins: int = 15,
        groups: str | Mapping[int, str] | None = None,
        max_scores: int = 2_000_000,
    ) -> None:
        super().__init__(on)
        check_count(_OWNER, "bins", bins, 1)
        check_count(_OWNER, "max_scores", max_scores, 0)
        self.bins, self.groups, self.max_scores = bins, groups, max_scores

    def check(self) -> None:
        """Raise `UsageError` for what can't be measured; see the class."""
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError(
                "it is for classification, and the task of this data is regression; use --metrology regression."
            )
        if is_choosable(self.driver.choice_pool) and (outputs := self.driver.probe()) is not None:
            self._columns(check_outputs(outputs))
        super().check()
        if self.groups is not None:
            on = self.on or ("validation" if self.driver.val_datapool is not None else "train")
            Groups(_OWNER, self.driver, self.groups, on)

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        kind = kind_of(self.driver.learner)
        on, batches = evaluate(self.driver, self.on)
        groups = None if self.groups is None else Groups(_OWNER, self.driver, self.groups, on)
        whole: _Tally | None = None
        ranked, each = RowSample(0), dict[str, _Tally]()
        for outputs, targets in batches:
            outputs = check_outputs(outputs)
            if whole is None:
                classes = self._columns(outputs)
                whole = _Tally(classes, self.bins)
                ranked = RowSample(self.max_scores // classes)
            probabilities = _probabilities(outputs, kind, whole.samples, on)
            predicted, true = (
                predicted_classes(outputs, kind).cpu().numpy(),
                _classes(targets, len(probabilities), classes),
            )
            whole.add(probabilities, predicted, true)
            ranked.add(_log_odds(probabilities), true)
            if groups is not None:
                names = groups.of_next(len(true))
                for name in sorted({name for name in names if name is not None}):
                    rows = np.array([other == name for other in names])
                    tally = each.setdefault(name, _Tally(classes, self.bins))
                    tally.add(probabilities[rows], predicted[rows], true[rows])
                check_number(_OWNER, len(each))
        if whole is None or not whole.samples:
            self.record_nothing(on)
            return
        metrics = whole.metrics() | self._of_classes(whole, ranked)
        if groups is not None:
            if not each:
                self.logger.warning("%s: no sample that is measured on (%s) is in a group.", _OWNER, on)
            metrics["per_group"] = [{"group": name, **each[name].metrics()} for name in sorted(each)]
        self.append_record(on=on, **metrics)

    def _columns(self, outputs: torch.Tensor) -> int:
        """Return the number of classes that the outputs are about."""
        columns = max(int(outputs.shape[-1]) if outputs.dim() > 1 else 1, 2)
        info = self.driver.info
        if info is not None and columns < info.classes:
            raise UsageError(
                f"the learner returned a tensor of shape {tuple(outputs.shape)}, which is about {columns} classes, and "
                f"the data has {info.classes}; a learner returns a column for each class, or one column for two."
            )
        return columns

    def _of_classes(self, whole: _Tally, ranked: RowSample) -> dict[str, Any]:
        """Return the metrics that are taken class by class."""
        pairs = whole.pairs()
        labels = np.arange(whole.classes)
        precision, recall, f1, _ = precision_recall_fscore_support(
            pairs.true, pairs.predicted, sample_weight=pairs.counts, labels=labels, zero_division=0
        )
        support = np.bincount(pairs.true, weights=pairs.counts, minlength=whole.classes)
        per_class: list[dict[str, Any]] = [
            {
                "class": self._name(number),
                "precision": float(precision[number]),
                "recall": float(recall[number]),
                "f1": float(f1[number]),
                "samples": int(support[number]),
            }
            for number in range(whole.classes)
        ]
        metrics: dict[str, Any] = {}
        if columns := ranked.columns():
            scores, true = columns
            for number, row in enumerate(per_class):
                row["auroc"], row["average_precision"] = _ranking(true == number, scores[:, number])
            counted = per_class[1:] if whole.classes == 2 else per_class
            for name in ("auroc", "average_precision"):
                values = [row[name] for row in counted if not math.isnan(row[name])]
                metrics[name] = math.fsum(values) / len(values) if values else math.nan
            if len(true) < whole.samples:
                metrics["ranked_samples"] = len(true)
        metrics["per_class"] = per_class
        if whole.classes <= _LARGEST_MATRIX:
            matrix = confusion_matrix(pairs.true, pairs.predicted, sample_weight=pairs.counts, labels=labels)
            metrics["confusion"] = matrix.astype(np.int64).tolist()
        return metrics

    def _name(self, number: int) -> str:
        names = self.driver.info.names if self.driver.info else ()
        return names[number] if number < len(names) else str(number)


class _Pairs:
    """The pairs of true and predicted class that occur: int64 (P,) each, and how often, float64 (P,)."""

    def __init__(self, codes: Array, counts: Array, classes: int) -> None:
        self.true, self.predicted = np.divmod(codes, classes)
        self.counts = counts.astype(np.float64)


class _Tally:
    """What is summed over chunks, for all samples or those of a group."""

    def __init__(self, classes: int, bins: int) -> None:
        self.classes, self.samples = classes, 0
        self._log_loss, self._brier = 0.0, 0.0
        self._codes = self._counts = np.empty(0, dtype=np.int64)
        self._bins = np.zeros((3, bins))  # samples, correct predictions and confidence

    def add(self, probabilities: Array, predicted: Array, true: Array) -> None:
        """Add a chunk: float64 (B, C), int64 (B,) and int64 (B,)."""
        size, labels = len(true), np.arange(self.classes)
        if not size:
            return
        self.samples += size
        self._log_loss += log_loss(true, probabilities, labels=labels, normalize=False)
        binary = self.classes == 2
        self._brier += size * brier_score_loss(
            true, probabilities[:, 1] if binary else probabilities, labels=labels, scale_by_half=binary
        )
        codes, counts = np.unique(np.concatenate([self._codes, true * self.classes + predicted]), return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(size, dtype=np.int64)])
        self._codes, self._counts = codes, np.bincount(counts, weights=weights).astype(np.int64)
        confidence = probabilities[np.arange(size), predicted]
        count = self._bins.shape[1]
        places = np.searchsorted(np.arange(1, count) / count, confidence)  # the last bin takes what rounds above 1
        for row, values in enumerate((None, predicted == true, confidence)):
            self._bins[row] += np.bincount(places, weights=values, minlength=count)

    def pairs(self) -> _Pairs:
        """Return the pairs of true and predicted class."""
        return _Pairs(self._codes, self._counts, self.classes)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all samples together."""
        pairs = self.pairs()
        balanced = recall_score(
            pairs.true, pairs.predicted, sample_weight=pairs.counts, labels=np.unique(pairs.true), average="macro"
        )  # as balanced_accuracy_score, which warns of a class that is predicted only
        _, correct, confidence = self._bins
        return {
            "accuracy": float(accuracy_score(pairs.true, pairs.predicted, sample_weight=pairs.counts)),
            "balanced_accuracy": float(balanced),
            "log_loss": float(self._log_loss / self.samples),
            "brier": float(self._brier / self.samples),
            "ece": float(np.abs(correct - confidence).sum() / self.samples),
            "samples": self.samples,
        }


def _log_odds(probabilities: Array) -> Array:
    """Return what samples are ranked by for each class, float64 (B, C): log p_c / (1 - p_c), to seven decimals.

    The order is that of p_c. Equal rows tie although their probabilities may differ in the last bit, by their places in
    a chunk, and what is near 1 keeps its order.
    """
    rows, largest = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    rest = probabilities.copy()
    rest[rows, largest] = 0
    others = 1 - probabilities
    others[rows, largest] = rest.sum(axis=1)  # where 1 - p may have lost its digits
    with np.errstate(divide="ignore"):
        odds = np.log(probabilities) - np.log(others)
    log_odds: Array = np.round(np.clip(odds, -_MOST_ODDS, _MOST_ODDS), 7)
    return log_odds


def _ranking(of_class: Array, scores: Array) -> tuple[float, float]:
    """Return AUROC and average precision of one class against the rest; NaN where nothing can be ranked."""
    if of_class.all() or not of_class.any():
        return math.nan, math.nan
    return float(roc_auc_score(of_class, scores)), float(average_precision_score(of_class, scores))


def _probabilities(outputs: torch.Tensor, kind: str, before: int, on: str) -> Array:
    """Return probabilities, float64 (B, C); an error for outputs that have none."""
    probabilities = class_probabilities(outputs.double(), kind).cpu()
    refuse_bad_outputs(_OWNER, probabilities.isnan().any(dim=1), before, on)
    sums = probabilities.sum(dim=1, keepdim=True)
    wrong = (probabilities < 0).any(dim=1) | ((sums[:, 0] - 1).abs() > _OFF)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise UsageError(
            f"{_OWNER}: the learner says that its outputs are probabilities, and those of the sample at position "
            f"{before + first} of what is measured on ({on}) are not: the least is {probabilities[first].min():.4g}, "
            f"the sum {sums[first].item():.4g}. Leave the learner's attribute `outputs` out if it returns logits."
        )
    return (probabilities if kind == "logits" else probabilities / sums).numpy()


def _classes(targets: torch.Tensor, count: int, classes: int) -> Array:
    """Return targets as class numbers, int64 (B,)."""
    truth = targets.reshape(-1).cpu()
    if len(truth) != count:
        raise UsageError(f"{_OWNER}: {count} predictions for targets of shape {tuple(targets.shape)}.")
    codes = truth.long()
    whole = not truth.is_floating_point() or torch.equal(codes.to(truth.dtype), truth)
    if not whole or bool(((codes < 0) | (codes >= classes)).any()):
        raise UsageError(f"{_OWNER}: targets must be classes 0 to {classes - 1}, and one is not.")
    return codes.numpy()
