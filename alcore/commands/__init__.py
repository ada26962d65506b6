"""What sub-commands of core and of plugins share: options, messages, tables, and running a Driver.

Importing this package imports neither torch nor typer; its names are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alcore.commands.driving import build_driver, complete_experiment, prepare, results_alone, run_driver
    from alcore.commands.exits import INTERRUPTED
    from alcore.commands.messages import say
    from alcore.commands.options import (
        DEFAULT_ROOT,
        AllowCode,
        AllowCodeOfFile,
        AsJson,
        DriverTable,
        ExperimentFile,
        LearnerOfRun,
        Root,
        RunName,
        Target,
        integer,
        part_option,
        takes_driver_flags,
    )
    from alcore.commands.results import report, shell_name
    from alcore.commands.tables import table

_HOME = {
    "AllowCode": "options",
    "AllowCodeOfFile": "options",
    "AsJson": "options",
    "build_driver": "driving",
    "complete_experiment": "driving",
    "DEFAULT_ROOT": "options",
    "DriverTable": "options",
    "ExperimentFile": "options",
    "integer": "options",
    "INTERRUPTED": "exits",
    "LearnerOfRun": "options",
    "part_option": "options",
    "prepare": "driving",
    "report": "results",
    "results_alone": "driving",
    "Root": "options",
    "run_driver": "driving",
    "RunName": "options",
    "say": "messages",
    "shell_name": "results",
    "table": "tables",
    "takes_driver_flags": "options",
    "Target": "options",
}
__all__ = [
    "AllowCode",
    "AllowCodeOfFile",
    "AsJson",
    "build_driver",
    "complete_experiment",
    "DEFAULT_ROOT",
    "DriverTable",
    "ExperimentFile",
    "integer",
    "INTERRUPTED",
    "LearnerOfRun",
    "part_option",
    "prepare",
    "report",
    "results_alone",
    "Root",
    "run_driver",
    "RunName",
    "say",
    "shell_name",
    "table",
    "takes_driver_flags",
    "Target",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alcore.commands' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alcore.commands.{_HOME[name]}"), name)
