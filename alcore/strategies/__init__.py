"""Base classes of strategies, and what a label strategy says of itself."""

from alcore.strategies.bases import (
    BaseLabel,
    BaseMetrology,
    BaseQuery,
    BaseStrategy,
    BaseTracker,
    PointwiseQuery,
    SetQuery,
    Tracked,
)
from alcore.strategies.label_options import labels_by_id, most_at_once, works_remotely

__all__ = [
    "BaseLabel",
    "BaseMetrology",
    "BaseQuery",
    "BaseStrategy",
    "BaseTracker",
    "PointwiseQuery",
    "SetQuery",
    "Tracked",
    "labels_by_id",
    "most_at_once",
    "works_remotely",
]
