"""What sub-commands of core and of plugins share: options, messages, tables, and running a Driver.

Importing this package imports neither torch nor typer; its names are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alcore.lazy import lazy_names

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
        NewRunId,
        ResultAsJson,
        Root,
        RunName,
        Target,
        integer,
        part_option,
        takes_driver_flags,
    )
    from alcore.commands.results import at_a_time, from_here, report, resume_command, shell_name
    from alcore.commands.tables import table

__all__ = [
    "AllowCode",
    "AllowCodeOfFile",
    "AsJson",
    "at_a_time",
    "build_driver",
    "complete_experiment",
    "DEFAULT_ROOT",
    "DriverTable",
    "ExperimentFile",
    "from_here",
    "integer",
    "INTERRUPTED",
    "LearnerOfRun",
    "NewRunId",
    "part_option",
    "prepare",
    "report",
    "ResultAsJson",
    "results_alone",
    "resume_command",
    "Root",
    "run_driver",
    "RunName",
    "say",
    "shell_name",
    "table",
    "takes_driver_flags",
    "Target",
]
__getattr__ = lazy_names(
    __name__,
    {
        "driving": ["build_driver", "complete_experiment", "prepare", "results_alone", "run_driver"],
        "exits": ["INTERRUPTED"],
        "messages": ["say"],
        "options": [
            "AllowCode",
            "AllowCodeOfFile",
            "AsJson",
            "DEFAULT_ROOT",
            "DriverTable",
            "ExperimentFile",
            "integer",
            "LearnerOfRun",
            "NewRunId",
            "part_option",
            "ResultAsJson",
            "Root",
            "RunName",
            "takes_driver_flags",
            "Target",
        ],
        "results": ["at_a_time", "from_here", "report", "resume_command", "shell_name"],
        "tables": ["table"],
    },
)
