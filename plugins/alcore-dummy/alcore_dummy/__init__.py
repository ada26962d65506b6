"""Label samples of a pool that knows the answers, for experiments on labeled data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_dummy.label import DummyLabelStrategy

__all__ = ["DummyLabelStrategy"]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``dummy``."""
    return {"dummy": "alcore_dummy.label:DummyLabelStrategy"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from alcore_dummy import label

        return getattr(label, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
