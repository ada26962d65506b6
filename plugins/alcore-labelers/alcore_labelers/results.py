"""What a function may return, or raise, beside the plain value of a label."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Labeled:
    """A label that says what it cost.

    Parameters
    ----------
    value
        The label: a number, text, an array, or a list of these.
    cost
        What it cost, in the units of ``DriverConfig.budget``; None for what the label strategy counts.
    """

    value: Any
    cost: float | None = None


class Infeasible(Exception):  # noqa: N818 - it is returned as well as raised
    """Raised or returned for an input that has no label, such as one for which a solver has no solution.

    It is not asked for again, and doesn't count as a failure.

    Parameters
    ----------
    reason
        Why, for the person who reads the log.
    cost
        What it cost to find out; None for what the label strategy counts.
    """

    def __init__(self, reason: str = "it has no label", cost: float | None = None) -> None:
        super().__init__(reason)
        self.cost = cost
