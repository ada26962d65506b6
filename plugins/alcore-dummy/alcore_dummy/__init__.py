"""Label samples of a pool that knows the answers, for experiments on labeled data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_dummy.label import DummyLabelStrategy

_HOME = {
    "DummyLabelStrategy": "label",
}
__all__ = ["DummyLabelStrategy"]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``dummy``."""
    return {"dummy": "alcore_dummy.label:DummyLabelStrategy"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
