"""What core itself offers, through the hooks that plugins use."""

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
