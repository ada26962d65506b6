"""Stop criteria on a metric: it reached a threshold, or it stopped improving."""

from __future__ import annotations

import math
from typing import Literal

import alcore
from alcore.errors import UsageError
from alcore.protocols import RunContext
from alcore_stopping.metrics_of_run import lower_is_better, metric_of_run

Mode = Literal["max", "min"]


def _mode(owner: object, name: str, mode: Mode | None) -> Mode:
    """Return `mode` if it is given, else whether a higher or a lower value is better by the name of the metric."""
    if mode not in (None, "max", "min"):
        raise UsageError(f"{type(owner).__name__}: mode is {mode!r}; it must be 'max' or 'min', or left out.")
    return mode or ("min" if lower_is_better(name) else "max")


class MetricReached:
    """End the run when a metric reaches a threshold.

    Parameters
    ----------
    threshold
        The value to reach.
    name
        The metric: a number in a metrology record, such as ``f1``, ``accuracy`` or ``rmse``, or with the name of the
        strategy, ``f1_metrology.f1``.
    mode
        ``"max"``: at least the threshold; ``"min"``: at most. If not given, ``"min"`` for a name that ends in
        loss, error, rmse, mse, mae, mape, nll, brier, ece, l2 or perplexity, else ``"max"``.

    Notes
    -----
    The criterion uses the last measurement, and has no state. It helps where a target is set. It is known to hurt where
    the metric is noisy, as with a small validation set: one lucky step ends the run.
    """

    def __init__(self, threshold: float, name: str = "f1", mode: Mode | None = None) -> None:
        if not math.isfinite(threshold):
            raise UsageError(f"MetricReached: threshold is {threshold}; it must be a finite number.")
        self.threshold, self.name = threshold, name
        self.mode = _mode(self, name, mode)

    @alcore.runhook
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return the reason to stop, or None."""
        measured = metric_of_run(driver, self.name)
        if not measured:
            return None
        value = measured[-1].value
        if not (value >= self.threshold if self.mode == "max" else value <= self.threshold):
            return None
        bound = "at least" if self.mode == "max" else "at most"
        return f"{self.name} is {value:.4g}, {bound} {self.threshold:g} was wanted"


class Plateau:
    """End the run when a metric has not improved for a number of steps.

    Parameters
    ----------
    patience
        The run ends after this many steps in a row without improvement.
    min_delta
        A value is an improvement if it is better than the best one so far by more than this.
    name
        The metric: a number in a metrology record, such as ``f1``, ``accuracy`` or ``rmse``, or with the name of the
        strategy, ``f1_metrology.f1``.
    mode
        ``"max"``: higher is better; ``"min"``: lower is. If not given, ``"min"`` for a name that ends in loss,
        error, rmse, mse, mae, mape, nll, brier, ece, l2 or perplexity, else ``"max"``.

    Notes
    -----
    The criterion reads the records of the run each time, and has no state. Steps without a measurement don't count; a
    step that measures NaN counts as one without improvement. It helps where no target is known. It is known to hurt
    where learning curves have flat parts, for instance before a rare class is found; raise `patience` then.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, name: str = "f1", mode: Mode | None = None) -> None:
        if patience < 1:
            raise UsageError(f"Plateau: patience is {patience}; it must be at least 1.")
        if not 0 <= min_delta < math.inf:
            raise UsageError(f"Plateau: min_delta is {min_delta}; it must be 0 or more.")
        self.patience, self.min_delta, self.name = patience, min_delta, name
        self.mode = _mode(self, name, mode)

    @alcore.runhook
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return the reason to stop, or None."""
        measured = metric_of_run(driver, self.name)
        if not measured:
            return None
        sign = 1 if self.mode == "max" else -1
        best, waited = None, 0
        for measurement in measured:
            if math.isnan(measurement.value):
                waited += 1
            elif best is None or sign * (measurement.value - best.value) > self.min_delta:
                best, waited = measurement, 0
            else:
                waited += 1
        if waited < self.patience:
            return None
        since = "" if best is None else f" than {best.value:.4g} in step {best.step}"
        more = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{self.name} hasn't become better{since}{more} for {waited} steps"
