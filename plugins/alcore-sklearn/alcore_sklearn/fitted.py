"""A fitted estimator whose outputs have one column for each class of the data, whatever classes it has seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from alcore.errors import UsageError
from alcore.randomness import derive_seed, preserve_rng_state
from alcore_sklearn.estimators import Output, seeded
from alcore_sklearn.labeled import Arrays, class_codes

ABSENT = -1e30
"""Decision value of a class that no label names: finite, and its softmax is 0."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """An estimator after `fit`, or what stands in where there was too little to fit.

    Parameters
    ----------
    estimator
        The fitted estimator, or None without labels, or with labels of one class.
    output
        What is asked of it.
    classes
        Columns of the outputs of a classifier.
    present
        Codes of the classes among the labels, ascending: int64.
    trailing
        Shape of one target of a regression.
    """

    estimator: Any
    output: Output
    classes: int
    present: np.ndarray[Any, Any]
    trailing: tuple[int, ...] = ()

    def __call__(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the outputs for rows of shape (B, D), in the precision in which scikit-learn computes them.

        Returns
        -------
        numpy.ndarray
            Probabilities (B, C). Or decision values: (B,) for two classes, (B, C) for more. Or the values of a
            regression: (B,) or (B, T), like its targets. NaN for rows with NaN or infinity, if scikit-learn refuses
            them.
        """
        answer = {"values": self._values, "probabilities": self._probabilities, "decision": self._decision}[self.output]
        try:
            return answer(rows)
        except ValueError:
            broken = ~np.isfinite(rows).all(axis=1)
            if not broken.any():
                raise
        outputs = np.array(answer(np.where(broken[:, None], 0, rows)))
        outputs[broken] = np.nan
        return outputs

    def of_nothing(self) -> np.ndarray[Any, Any]:
        """Return the outputs for no samples, which scikit-learn refuses to be asked for."""
        nobody = np.empty(0, dtype=np.int64)
        return dataclasses.replace(self, estimator=None, present=nobody)(np.empty((0, 1)))

    def _values(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.estimator is None:
            return np.zeros((len(rows), *self.trailing))
        return np.asarray(self.estimator.predict(rows)).reshape(len(rows), *self.trailing)

    def _probabilities(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not len(self.present):
            return np.full((len(rows), self.classes), 1 / self.classes)
        shares = 1.0 if self.estimator is None else self.estimator.predict_proba(rows)
        if len(self.present) == self.classes:
            return np.asarray(shares)
        whole = np.zeros((len(rows), self.classes))
        whole[:, self.present] = shares
        return whole

    def _decision(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Place decision values in their columns; for two classes it is the second column less the first."""
        if not len(self.present):
            return np.zeros(len(rows) if self.classes == 2 else (len(rows), self.classes))
        decision = np.zeros((len(rows), 1)) if self.estimator is None else self._decided(rows)
        if decision.ndim == 1:
            if self.classes == 2:
                return decision
            decision = np.stack([np.zeros_like(decision), decision], axis=1)
        if len(self.present) == self.classes:
            return decision
        whole = np.full((len(rows), self.classes), ABSENT)
        whole[:, self.present] = decision
        return whole[:, 1] - whole[:, 0] if self.classes == 2 else whole

    def _decided(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        values = np.asarray(self.estimator.decision_function(rows))
        if values.shape[1:] != (() if len(self.present) == 2 else (len(self.present),)):
            raise UsageError(
                f"the decision_function of {type(self.estimator).__name__} returned shape {values.shape} for "
                f"{len(self.present)} classes; one value a class is needed (decision_function_shape='ovr')."
            )
        return values


def unfitted(output: Output, classes: int) -> Fitted:
    """Return what is used without labels: equal probabilities of all classes, or 0 for a regression."""
    return Fitted(None, output, max(classes, 2), np.empty(0, dtype=np.int64))


def fit(template: Any, output: Output, classes: int, arrays: Arrays, seed: int) -> Fitted:
    """Fit a copy of an estimator.

    Parameters
    ----------
    template
        The estimator, unfitted.
    output
        What will be asked of it.
    classes
        Number of classes; 0 where it is not known, or for a regression.
    arrays
        Labeled samples.
    seed
        What random states that are None are derived from.

    Returns
    -------
    Fitted
        Without labels, as `unfitted`. With labels of one class, a classifier is not fitted: that
        class has probability 1.

    Raises
    ------
    UsageError
        When targets are not class codes, or scikit-learn refuses the samples.
    """
    if not len(arrays.rows):
        return unfitted(output, classes)
    if output == "values":
        targets, trailing = arrays.targets, arrays.targets.shape[1:]
        estimator = _fitted(template, seed, arrays.rows, targets.ravel() if trailing == (1,) else targets)
        return Fitted(estimator, output, 0, np.empty(0, dtype=np.int64), trailing)
    codes = class_codes(arrays.targets, classes)
    present = np.unique(codes)
    estimator = None if len(present) < 2 else _fitted(template, seed, arrays.rows, codes)
    return Fitted(estimator, output, classes or max(2, int(present[-1]) + 1), present)


def _fitted(template: Any, seed: int, rows: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> Any:
    estimator = seeded(template, seed)
    with preserve_rng_state():
        np.random.seed(derive_seed(seed, "numpy") % 2**32)  # SVR draws from it, and has no random_state
        try:
            return estimator.fit(rows, targets)
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(
                f"{type(estimator).__name__} can't be fitted on {len(rows)} labeled samples: {error}"
            ) from error
