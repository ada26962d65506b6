"""Get labels from outside a run: from people, who are asked and tell, from a function, from programs or jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import alcore
from alcore.lazy import lazy_names

if TYPE_CHECKING:
    import typer

    from alcore_labelers.answer_files import read_answers
    from alcore_labelers.ask import AskLabelStrategy
    from alcore_labelers.command import CommandLabelStrategy
    from alcore_labelers.function import FunctionLabelStrategy
    from alcore_labelers.items import Item, read_items
    from alcore_labelers.jobs import JobsLabelStrategy
    from alcore_labelers.request_files import check_requests_file, requests_as_csv, write_requests
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
    "check_requests_file",
    "read_answers",
    "read_items",
    "requests_as_csv",
    "write_requests",
]
__getattr__ = lazy_names(
    __name__,
    {
        "answer_files": ["read_answers"],
        "ask": ["AskLabelStrategy"],
        "command": ["CommandLabelStrategy"],
        "function": ["FunctionLabelStrategy"],
        "items": ["Item", "read_items"],
        "jobs": ["JobsLabelStrategy"],
        "request_files": ["check_requests_file", "requests_as_csv", "write_requests"],
        "results": ["Infeasible", "Labeled"],
        "schedulers": ["Job", "Jobs", "JobsOptions", "Known", "NotSubmittedError", "SchedulerError", "SchedulerFault"],
    },
)


@alcore.hookimpl
def alcore_label_strategies() -> dict[str, Any]:
    """Offer ``ask``, ``command``, ``function`` and ``jobs``."""
    return {
        "ask": "alcore_labelers.ask:AskLabelStrategy",
        "command": "alcore_labelers.command:CommandLabelStrategy",
        "function": "alcore_labelers.function:FunctionLabelStrategy",
        "jobs": "alcore_labelers.jobs:JobsLabelStrategy",
    }


@alcore.hookimpl
def alcore_commands(app: typer.Typer) -> None:
    """Add ``ask``, ``tell`` and ``labels``; what they need is imported when they are called."""
    from alcore_labelers.ask_command import ask
    from alcore_labelers.labels_command import labels
    from alcore_labelers.tell_command import tell

    for command in (ask, tell, labels):
        app.command(command.__name__)(command)
