"""What the metrology strategies of this package have in common: which samples they measure on."""

from __future__ import annotations

from alcore.errors import UsageError
from alcore.inference import MeasuredOn, evaluate
from alcore.strategies import BaseMetrology


class MetricsBase(BaseMetrology):
    """A metrology strategy that measures on the samples that its parameter `on` says."""

    def __init__(self, on: MeasuredOn | None = None) -> None:
        super().__init__()
        self.on = on

    def check(self) -> None:
        """Raise `UsageError` if this run has no samples such as `on` says."""
        if self.on is not None:  # what is measured on otherwise is always there, and may bring a warning
            evaluate(self.driver, self.on)

    def record_nothing(self, on: str) -> None:
        """Record that no sample is left to measure on; `UsageError` unless samples can run out in a sound run."""
        if on != "unlabeled":
            raise UsageError(f"{type(self).__name__}: there is no sample to measure on.")
        self.append_record(on=on, samples=0)


def check_count(owner: str, name: str, value: int, least: int) -> None:
    """Raise `UsageError` for a number below `least`."""
    if value < least:
        raise UsageError(f"{owner}: {name} is {value}; it must be at least {least}.")
