"""The plugin that is core itself: queues of the standard library, offered through the same hooks as any plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alcore.hookspecs import hookimpl


@hookimpl
def alcore_queues() -> Mapping[str, Any]:
    """Offer the queues of the standard library."""
    return {
        "fifo": "queue:Queue",
        "lifo": "queue:LifoQueue",
        "priority": "queue:PriorityQueue",
        "simple": "queue:SimpleQueue",
        "process": "multiprocessing:Queue",
    }
