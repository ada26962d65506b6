"""Write what each step of a run measured to a CSV file, one row a step."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_csvlog.tracker import CsvTracker

__all__ = ["CsvTracker"]


@alcore.hookimpl
def alcore_observers() -> dict[str, Any]:
    """Offer ``--observe csv``."""
    return {"csv": "alcore_csvlog.tracker:CsvTracker"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.tracker"), name)
