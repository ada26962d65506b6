"""Values as short text, for pages and terminals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def short(text: str, most: int) -> str:
    """Return text of at most so many characters; what is cut off is marked."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def label_of(request: Mapping[str, Any]) -> str:
    """Return the label of a row of `Run.requests` as short text; empty where there is none."""
    if request["kind"] == "id":
        return "pool's own"
    if request["file"] is not None:
        return f"labels/{request['file'][:8]}\N{HORIZONTAL ELLIPSIS}"
    return short(str(request["value"] or ""), 40)


def asked_for(request: Mapping[str, Any]) -> str:
    """Return what a row of `Run.requests` asks for, as short text: the sample id, or the generated input."""
    return str(request["sample"]) if request["item"] is None else short(str(request["item"]), 40)


def number(value: Any) -> str:
    """Return a number as short text; a dash where there is none."""
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)


def seconds(value: Any) -> str:
    """Return a number of seconds as text, to the millisecond; a dash where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) else number(None)


def duration(length: float | None) -> str:
    """Return a duration as text, such as ``3 min 20 s``; empty where it is not known."""
    if length is None:
        return ""
    whole = round(length)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
