"""Numbers in cells."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Literal

DecimalMark = Literal[".", ","]


def number(cell: str, mark: DecimalMark = ".") -> float | None:
    """Return the number in a cell, infinite if it is too large, or None if it is text.

    Parameters
    ----------
    cell
        Its text.
    mark
        The decimal mark; if it is a comma, a cell with a point is text, since the point may group thousands.
    """
    plain = _plain(cell, mark)
    if plain is None:
        return None
    try:
        value = float(plain)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def exact(cell: str, mark: DecimalMark = ".") -> Decimal:
    """Return the number in a cell without rounding, so that long codes stay different."""
    return Decimal(_plain(cell, mark) or "")


def has_decimal_comma(cell: str) -> bool:
    """Tell whether a cell would be a number if the decimal mark were a comma."""
    return re.fullmatch(r"[-+]?\d*,\d+", cell) is not None


def _plain(cell: str, mark: DecimalMark) -> str | None:
    if "_" in cell or (mark == "," and "." in cell):
        return None
    return cell.replace(",", ".") if mark == "," else cell
