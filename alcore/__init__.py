"""Active learning as a loop of exchangeable parts: train, measure, query, label.

Importing this package imports neither torch nor any plugin; its names are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alcore.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alcore import config
    from alcore.distributed import DistributedManager
    from alcore.driver import Driver
    from alcore.errors import AlcoreError, UsageError
    from alcore.hookspecs import hookimpl, runhook
    from alcore.pools import Data, DataInfo, DatasetPool, TensorPool
    from alcore.protocols import (
        PENDING,
        AbstractQueue,
        ActiveLearningPhase,
        DataPool,
        DriverProtocol,
        Failed,
        Label,
        LabelStrategy,
        LearnerProtocol,
        MetrologyStrategy,
        Phase,
        QueryStrategy,
        Request,
        TrainingLoop,
    )
    from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery, BaseTracker, PointwiseQuery, SetQuery

__all__ = [
    "AbstractQueue",
    "ActiveLearningPhase",
    "AlcoreError",
    "BaseLabel",
    "BaseMetrology",
    "BaseQuery",
    "BaseTracker",
    "Data",
    "DataInfo",
    "DataPool",
    "DatasetPool",
    "DistributedManager",
    "Driver",
    "DriverProtocol",
    "Failed",
    "Label",
    "LabelStrategy",
    "LearnerProtocol",
    "MetrologyStrategy",
    "PENDING",
    "Phase",
    "PointwiseQuery",
    "QueryStrategy",
    "Request",
    "SetQuery",
    "TensorPool",
    "TrainingLoop",
    "UsageError",
    "config",
    "hookimpl",
    "runhook",
]
__getattr__ = lazy_names(
    __name__,
    {
        "config": [],
        "distributed": ["DistributedManager"],
        "driver": ["Driver"],
        "errors": ["AlcoreError", "UsageError"],
        "hookspecs": ["hookimpl", "runhook"],
        "pools": ["Data", "DataInfo", "DatasetPool", "TensorPool"],
        "protocols": [
            "AbstractQueue",
            "ActiveLearningPhase",
            "DataPool",
            "DriverProtocol",
            "Failed",
            "Label",
            "LabelStrategy",
            "LearnerProtocol",
            "MetrologyStrategy",
            "PENDING",
            "Phase",
            "QueryStrategy",
            "Request",
            "TrainingLoop",
        ],
        "strategies": ["BaseLabel", "BaseMetrology", "BaseQuery", "BaseTracker", "PointwiseQuery", "SetQuery"],
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
