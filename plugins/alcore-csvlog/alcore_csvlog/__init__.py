"""Write what each step of a run measured to a CSV file, one row a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_csvlog.tracker import CsvTracker

__all__ = ["CsvTracker"]
__getattr__ = lazy_names(__name__, {"tracker": ["CsvTracker"]})


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe csv``."""
    return {"csv": "alcore_csvlog.tracker:CsvTracker"}
