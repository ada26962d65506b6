"""Numbers and times in words."""

from __future__ import annotations


def counted(number: int, what: str, form: str = "") -> str:
    """Return a number with what is counted, such as ``1 step`` or, in the form ``,``, ``2,000 steps``."""
    return f"{number:{form}} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a measured time, from milliseconds to hours, to three digits or whole minutes."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def rough_duration(seconds: float) -> str:
    """Return a time that was estimated: two digits of the unit that suits it."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"
