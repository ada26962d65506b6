"""Get labels from outside a run: from people, who are asked and tell, or from a function."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_labelers.ask import AskLabelStrategy
    from alcore_labelers.function import FunctionLabelStrategy
    from alcore_labelers.items import Item, read_items
    from alcore_labelers.results import Infeasible, Labeled

_HOME = {
    "AskLabelStrategy": "ask",
    "FunctionLabelStrategy": "function",
    "Infeasible": "results",
    "Item": "items",
    "Labeled": "results",
    "read_items": "items",
}
__all__ = ["AskLabelStrategy", "FunctionLabelStrategy", "Infeasible", "Item", "Labeled", "read_items"]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``ask`` and ``function``."""
    return {
        "ask": "alcore_labelers.ask:AskLabelStrategy",
        "function": "alcore_labelers.function:FunctionLabelStrategy",
    }


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
