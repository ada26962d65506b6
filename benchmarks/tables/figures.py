"""The figures that predictions are measured by."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

LEAST = 1e-15
"""Probabilities below it count as this, as scikit-learn's log_loss has it."""
BINS = 15


def of_classes(probabilities: Any, targets: Any) -> dict[str, float]:
    """Return accuracy, log loss and expected calibration error.

    The calibration error is that of the largest probability in 15 bins of equal width, weighted by their sizes (Guo et
    al. 2017, On calibration of modern neural networks, ICML).
    """
    whole = probabilities / probabilities.sum(axis=1, keepdims=True)
    largest, predicted = whole.max(axis=1), whole.argmax(axis=1)
    right = predicted == targets
    bins = np.minimum((largest * BINS).astype(int), BINS - 1)
    error = sum(abs(right[bins == b].mean() - largest[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    loss = -np.log(np.clip(whole[np.arange(len(targets)), targets], LEAST, 1)).mean()
    return {"accuracy": float(right.mean()), "log_loss": float(loss), "calibration_error": float(error)}


def of_shares(trained_on: Any, targets: Any, classes: int) -> float:
    """Return the log loss of the classes' shares among the labels, one added to each count (Laplace)."""
    shares = (np.bincount(trained_on, minlength=classes) + 1) / (len(trained_on) + classes)
    return float(-np.log(shares[targets]).mean())


def of_values(mean: Any, deviation: Any, targets: Any) -> dict[str, float]:
    """Return r2; with a standard deviation the share that the 90% interval covers, and log likelihood, too."""
    left = float(((targets - mean) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())
    figures = {"r2": 1 - left}
    if deviation is not None:
        inside = abs(targets - mean) <= norm.ppf(0.95) * deviation
        scaled = (targets - mean) / deviation
        density = -0.5 * scaled**2 - np.log(deviation * np.sqrt(2 * np.pi))
        figures |= {"covered_90": float(inside.mean()), "log_likelihood": float(density.mean())}
    return figures
