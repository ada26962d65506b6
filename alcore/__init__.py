"""Active learning as a loop of exchangeable parts: train, measure, query, label.

Importing this package imports neither torch nor any plugin; its names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "alcore.distributed": ["DistributedManager"],
    "alcore.driver": ["Driver"],
    "alcore.errors": ["AlcoreError", "UsageError"],
    "alcore.hookspecs": ["hookimpl", "runhook"],
    "alcore.pools": ["Data", "DataInfo", "DatasetPool", "TensorPool"],
    "alcore.protocols": [
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
    "alcore.strategies": ["BaseLabel", "BaseMetrology", "BaseQuery", "BaseTracker", "PointwiseQuery", "SetQuery"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    elif name == "config":
        value = importlib.import_module("alcore.config")
    else:
        raise AttributeError(f"module 'alcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
