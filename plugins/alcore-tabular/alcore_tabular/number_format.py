"""Numbers in cells."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from alcore_tabular.standalone import number, without_mark

__all__ = ["DecimalMark", "exact", "has_decimal_comma", "number"]

DecimalMark = Literal[".", ","]


def exact(cell: str, mark: DecimalMark = ".") -> Decimal:
    """Return the number in a cell without rounding, so that long codes stay different."""
    return Decimal(without_mark(cell, mark) or "")


def has_decimal_comma(cell: str) -> bool:
    """Tell whether a cell would be a number if the decimal mark were a comma."""
    return re.fullmatch(r"[-+]?\d*,\d+", cell) is not None
