"""Get labels from outside a run: from people, who are asked and tell."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_labelers.ask import AskLabelStrategy

_HOME = {
    "AskLabelStrategy": "ask",
}
__all__ = ["AskLabelStrategy"]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``ask``."""
    return {"ask": "alcore_labelers.ask:AskLabelStrategy"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
