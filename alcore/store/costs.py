"""What the labels of a run have cost: sums over its steps, in which each finished step is added up once."""

from __future__ import annotations

import sqlite3
from fractions import Fraction
from typing import NamedTuple

from alcore.protocols import Spent
from alcore.store.database import Source, reads

_NO_STEP = 2**62
"""A step after all others."""


class Paid(NamedTuple):
    """What was paid in some steps.

    Parameters
    ----------
    labels
        How many labels are current.
    answers
        How many answers have a cost: these labels, and failed attempts.
    cost
        What they cost together: the exact sum, which does not depend on the order in which they came.
    """

    labels: int = 0
    answers: int = 0
    cost: Fraction = Fraction(0)


class Costs:
    """The running sums of a run. Who changes answers says so, by `changed` or `forget`.

    The sums over the steps before one that was asked for are kept, so that the next step adds only what came since.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._step, self._before = 0, Paid()

    @reads
    def bought(self, connection: sqlite3.Connection, before: int) -> Spent:
        """Return how many current labels arrived before a step, and what they and failed attempts cost."""
        paid = self._paid(connection, before)
        return Spent(paid.labels, float(paid.cost))

    def _paid(self, connection: sqlite3.Connection, before: int) -> Paid:
        """Return what was paid before a step."""
        if before < self._step:
            self.forget()
        if before > self._step:
            self._step, self._before = before, _added(self._before, connection, self._step, before)
        return self._before

    @reads
    def committed(self, connection: sqlite3.Connection, before: int | None = None) -> float:
        """Return what the current labels cost and failed attempts did, plus what open requests are expected to cost.

        Parameters
        ----------
        before
            A step: what was paid before it, plus the cost of requests that were open when it began. None for now.
        """
        if before is None:
            before, paid = _NO_STEP, _added(self._before, connection, self._step, _NO_STEP)
        else:
            paid = self._paid(connection, before)
        return float(paid.cost + _sum(_reserved(connection, before)))

    @reads
    def mean(self, connection: sqlite3.Connection, before: int) -> float | None:
        """Return what an answer has cost on average before a step, failed attempts included; None before the first."""
        paid = self._paid(connection, before)
        return float(paid.cost / paid.answers) if paid.answers else None

    def changed(self, step: int) -> None:
        """Note that the answers of a step are changed; those of a finished one are read again."""
        if step < self._step:
            self.forget()

    def forget(self) -> None:
        """Begin all sums anew."""
        self._step, self._before = 0, Paid()


def _added(before: Paid, connection: sqlite3.Connection, first: int, end: int) -> Paid:
    """Return a sum with what was paid in the steps from `first` to before `end`: for current labels, and for others."""
    labels = _by_cost(connection, "labels WHERE step >= ? AND step < ? AND superseded = 0", first, end)
    others = _by_cost(connection, "refused WHERE step >= ? AND step < ? AND cost NOT NULL", first, end)
    count = sum(number for _, number in labels)
    return Paid(
        before.labels + count,
        before.answers + count + sum(number for _, number in others),
        before.cost + _sum(labels) + _sum(others),
    )


def _reserved(connection: sqlite3.Connection, before: int) -> list[tuple[float, int]]:
    """Return what the requests that were open when a step began are expected to cost, and how many cost it."""
    return _by_cost(
        connection,
        "(SELECT cost FROM requests WHERE state = 'open' AND step < ?1"
        " UNION ALL SELECT cost FROM requests WHERE closed >= ?1 AND step < ?1)",
        before,
    )


def _by_cost(connection: sqlite3.Connection, rows: str, *steps: int) -> list[tuple[float, int]]:
    """Return each cost that occurs in rows, and how many have it."""
    rows_by_cost = connection.execute(f"SELECT cost, COUNT(*) FROM {rows} GROUP BY cost", steps)
    return [(cost, count) for cost, count in rows_by_cost]


def _sum(costs: list[tuple[float, int]]) -> Fraction:
    """Return the sum of costs, each with how often it occurs."""
    return sum((Fraction(cost) * count for cost, count in costs), Fraction(0))
