"""Label samples of a pool that knows the answers, for experiments on labeled data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    from alcore_dummy.label import DummyLabelStrategy

__all__ = ["DummyLabelStrategy"]
__getattr__ = lazy_names(__name__, {"label": ["DummyLabelStrategy"]})


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``dummy``."""
    return {"dummy": "alcore_dummy.label:DummyLabelStrategy"}
