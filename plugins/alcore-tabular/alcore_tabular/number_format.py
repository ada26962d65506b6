"""Numbers in cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from alcore_tabular.standalone import number, without_mark

__all__ = ["DecimalMark", "exact", "has_mark", "number", "other_mark"]

DecimalMark = Literal[".", ","]

_DECIMAL = re.compile(r"[-+]?\d*([.,])\d+")


def exact(cell: str, mark: DecimalMark = ".") -> Decimal:
    """Return the number in a cell without rounding, so that long codes stay different."""
    return Decimal(without_mark(cell, mark) or "")


def other_mark(rows: Iterable[Iterable[str]], mark: DecimalMark) -> DecimalMark | None:
    """Return the decimal mark that is not `mark`, where more cells of a table have it than `mark`; else None."""
    counts = Counter(match[1] for row in rows for cell in row if (match := _DECIMAL.fullmatch(cell)))
    other: DecimalMark = "," if mark == "." else "."
    return other if counts[other] > counts[mark] else None


def has_mark(cell: str, mark: DecimalMark | None) -> bool:
    """Return whether a cell is a number with this decimal mark."""
    match = _DECIMAL.fullmatch(cell)
    return match is not None and match[1] == mark
