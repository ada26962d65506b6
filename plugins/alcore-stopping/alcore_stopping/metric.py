"""Stop criteria on what is measured: a value that is reached, and one that doesn't get better any more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import alcore
from alcore.errors import UsageError
from alcore_stopping.metrics_of_run import figures, lower_is_better

if TYPE_CHECKING:
    from alcore.driver import Driver

Mode = Literal["max", "min"]


def _mode(owner: object, name: str, mode: Mode | None) -> Mode:
    """Return what is better of a figure: as the user says, else as its name says."""
    if mode not in (None, "max", "min"):
        raise UsageError(f"{type(owner).__name__}: mode is {mode!r}; it must be 'max' or 'min', or left out.")
    return mode or ("min" if lower_is_better(name) else "max")


class MetricReached:
    """End the run when a figure is as good as is wanted.

    Parameters
    ----------
    threshold
        The value to reach.
    name
        Which figure: a number in a metrology record, such as ``f1``, ``accuracy``, ``rmse``, or with the strategy
        before it, ``f1_metrology.f1``.
    mode
        ``"max"``: at least the threshold; ``"min"``: at most. If not given, ``"min"`` for a name that ends in
        loss, error, rmse, mse, mae, mape, nll, brier, ece or perplexity, else ``"max"``.

    Notes
    -----
    The criterion looks at what was measured last, and keeps no state. It helps where a target is set. It is
    known to hurt where the figure is noisy, as a small validation set is: one lucky step ends the run.
    """

    def __init__(self, threshold: float, name: str = "f1", mode: Mode | None = None) -> None:
        if not math.isfinite(threshold):
            raise UsageError(f"MetricReached: threshold is {threshold}; it must be a finite number.")
        self.threshold, self.name = threshold, name
        self.mode = _mode(self, name, mode)

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        """Return the reason to stop, or None."""
        measured = figures(driver, self.name)
        if not measured:
            return None
        value = measured[-1].value
        if not (value >= self.threshold if self.mode == "max" else value <= self.threshold):
            return None
        bound = "at least" if self.mode == "max" else "at most"
        return f"{self.name} is {value:.4g}, {bound} {self.threshold:g} was wanted"


class Plateau:
    """End the run when a figure hasn't become better for a number of steps.

    Parameters
    ----------
    patience
        How many steps in a row may bring no improvement before the run ends.
    min_delta
        A figure is better if it beats the best one so far by more than this.
    name
        Which figure: a number in a metrology record, such as ``f1``, ``accuracy``, ``rmse``, or with the strategy
        before it, ``f1_metrology.f1``.
    mode
        ``"max"``: higher is better; ``"min"``: lower is. If not given, ``"min"`` for a name that ends in loss,
        error, rmse, mse, mae, mape, nll, brier, ece or perplexity, else ``"max"``.

    Notes
    -----
    The records of the run are gone through anew each time, so there is no state to lose. Steps that measure nothing
    don't count; one that measures NaN counts as no improvement. It helps where no target is known. It is known to hurt
    where learning curves have flat parts, as they have while a class is yet to be found: be patient.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, name: str = "f1", mode: Mode | None = None) -> None:
        if patience < 1:
            raise UsageError(f"Plateau: patience is {patience}; it must be at least 1.")
        if not 0 <= min_delta < math.inf:
            raise UsageError(f"Plateau: min_delta is {min_delta}; it must be 0 or more.")
        self.patience, self.min_delta, self.name = patience, min_delta, name
        self.mode = _mode(self, name, mode)

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        """Return the reason to stop, or None."""
        measured = figures(driver, self.name)
        if not measured:
            return None
        sign = 1 if self.mode == "max" else -1
        best, waited = None, 0
        for figure in measured:
            if math.isnan(figure.value):
                waited += 1
            elif best is None or sign * (figure.value - best.value) > self.min_delta:
                best, waited = figure, 0
            else:
                waited += 1
        if waited < self.patience:
            return None
        since = "" if best is None else f" than {best.value:.4g} in step {best.step}"
        more = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{self.name} hasn't become better{since}{more} for {waited} steps"
