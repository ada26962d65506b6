"""Get labels from outside a run: from people, who are asked and tell, from a function, from programs or jobs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import alcore

if TYPE_CHECKING:
    from alcore_labelers.ask import AskLabelStrategy
    from alcore_labelers.command import CommandLabelStrategy
    from alcore_labelers.function import FunctionLabelStrategy
    from alcore_labelers.items import Item, read_items
    from alcore_labelers.jobs import JobsLabelStrategy
    from alcore_labelers.results import Infeasible, Labeled
    from alcore_labelers.schedulers import (
        Job,
        Jobs,
        JobsOptions,
        Known,
        NotSubmittedError,
        SchedulerError,
        SchedulerFault,
    )

_HOME = {
    "AskLabelStrategy": "ask",
    "CommandLabelStrategy": "command",
    "FunctionLabelStrategy": "function",
    "Infeasible": "results",
    "Item": "items",
    "Job": "schedulers",
    "Jobs": "schedulers",
    "JobsLabelStrategy": "jobs",
    "JobsOptions": "schedulers",
    "Known": "schedulers",
    "Labeled": "results",
    "NotSubmittedError": "schedulers",
    "SchedulerError": "schedulers",
    "SchedulerFault": "schedulers",
    "read_items": "items",
}
__all__ = [
    "AskLabelStrategy",
    "CommandLabelStrategy",
    "FunctionLabelStrategy",
    "Infeasible",
    "Item",
    "Job",
    "Jobs",
    "JobsLabelStrategy",
    "JobsOptions",
    "Known",
    "Labeled",
    "NotSubmittedError",
    "SchedulerError",
    "SchedulerFault",
    "read_items",
]


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``ask``, ``command``, ``function`` and ``jobs``."""
    return {
        "ask": "alcore_labelers.ask:AskLabelStrategy",
        "command": "alcore_labelers.command:CommandLabelStrategy",
        "function": "alcore_labelers.function:FunctionLabelStrategy",
        "jobs": "alcore_labelers.jobs:JobsLabelStrategy",
    }


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
