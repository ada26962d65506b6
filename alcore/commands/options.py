"""Arguments and flags that several commands have, each defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from alcore.plugins.registry import Registry, installed

DEFAULT_ROOT = Path("active_learning_logs")
"""The folder of runs, where no other is given."""


def installed_plugins(context: typer.Context) -> Registry:
    """Return the plugins that were loaded when the command started, or load them where it was not started as one."""
    return context.obj if isinstance(context.obj, Registry) else installed()


def integer(text: Any) -> int:
    """Read the value of a flag that takes an integer."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer.") from None


def number(text: Any) -> float:
    """Read the value of a flag that takes a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number.") from None


_READERS: dict[type, Callable[[Any], Any] | None] = {int: integer, float: number, str: None}


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return the completion of a flag that takes names of a kind."""
    return lambda incomplete: sorted(
        offer.name for offer in installed().offers(kind) if offer.name.startswith(incomplete)
    )


def part_option(kind: str, help_text: str) -> Any:
    """Return the option of a flag that takes names of a kind, such as ``query``, which shells complete."""
    return typer.Option(
        metavar="NAME",
        autocompletion=names_of(kind),
        help=help_text,
        rich_help_panel="Parts (`alcore plugins` lists them)",
    )


def _run_names(incomplete: str) -> list[str]:
    """Complete the id of a run in the folder of runs."""
    return sorted(
        database.parent.name
        for database in DEFAULT_ROOT.glob("[!.]*/run.db")
        if database.parent.name.startswith(incomplete)
    )


RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run id, the start of one, or a run directory.", autocompletion=_run_names),
]
"""The argument that names a run."""
Root = Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are.")]
"""The flag ``--root``."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The flag ``--json``."""
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
"""The flag ``--json`` of a command that runs something."""
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the run directory.")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run code and programs that the run's experiment names.")]
"""The flag ``--allow-code`` of a command that takes a run."""
LearnerOfRun = Annotated[
    str | None,
    typer.Option(
        "--learner",
        metavar="NAME",
        autocompletion=names_of("learner"),
        help="What makes the learner, for a run built in Python: package.module:name.",
    ),
]
"""The flag ``--learner`` of a command that takes a run."""
InDoubt = Annotated[
    Literal["ask", "drop"] | None,
    typer.Option(
        "--in-doubt", help="Requests that were being labeled when the run was cut off: ask again, or drop them."
    ),
]
Assign = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KIND.NAME.PARAMETER=VALUE", help="Give a parameter another value from here on; may repeat."
    ),
]
Unset = Annotated[
    list[str] | None,
    typer.Option(
        "--unset", metavar="KIND.NAME.PARAMETER", help="Leave a parameter at its default from here on; may repeat."
    ),
]
ExperimentFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="Experiment file, EXPERIMENT.toml, or data such as a CSV file.", show_default=False
    ),
]
"""The argument of a command that begins runs."""
NewRunId = Annotated[str | None, typer.Option(metavar="ID", help="Name of the run; made up if not given.")]
"""The flag ``--run-id`` of a command that begins a run."""
AllowCodeOfFile = Annotated[
    bool, typer.Option("--allow-code", help="Run code and programs that the experiment file names.")
]
"""The flag ``--allow-code`` of a command that begins runs."""
Target = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="COLUMN", help="What to predict, if the data has a parameter `target`.", show_default=False
    ),
]
"""The flag ``--target`` of a command that begins runs."""
OtherRanks = Annotated[
    bool, typer.Option("--other-ranks", help="Go on with another number of processes than the run began with.")
]
DriverTable = Annotated[dict[str, Any], "what flags set in the table [driver]; see takes_driver_flags"]
"""The parameter that receives what the driver's flags set, by the names of `DriverConfig`; see `takes_driver_flags`."""


class DriverFlag(NamedTuple):
    """A flag that sets a parameter of the table ``[driver]``."""

    setting: str
    type: type
    metavar: str
    help: str


DRIVER_FLAGS = {
    "steps": DriverFlag("max_active_learning_steps", int, "N", "End after so many steps."),
    "batch_size": DriverFlag("batch_size", int, "N", "Items in a training batch."),
    "budget": DriverFlag("budget", float, "COST", "What all labels may cost; one costs 1."),
    "keep": DriverFlag("keep", str, "RULES", "Checkpoints to keep, e.g. last=3,best=f1,every=10; all by default."),
    "seed": DriverFlag("seed", int, "N", "Seed of everything random [0]."),
    "device": DriverFlag("device", str, "NAME", "Where to compute [cpu]."),
    "dtype": DriverFlag("dtype", str, "NAME", "Floating-point type; else the learner's."),
    "threads": DriverFlag("threads", int, "N", "CPU threads; chosen by the learner's size."),
    "queue": DriverFlag("queue", str, "NAME", "Queue from query to labeling [fifo]."),
    "weights": DriverFlag("weights", str, "FILE", "Begin with these weights, of a safetensors file."),
    "root": DriverFlag("root_log_dir", str, "DIR", "Where run directories are [active_learning_logs]."),
}


def takes_driver_flags(**flags: str | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags of `DRIVER_FLAGS`, in place of its parameter that is annotated as `DriverTable`.

    Parameters
    ----------
    **flags
        The flags, each with the help text of this command; None takes the one in `DRIVER_FLAGS`. All flags, with those
        texts, where none is given.
    """
    taken = flags or dict.fromkeys(DRIVER_FLAGS)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        (table,) = (name for name, parameter in signature.parameters.items() if parameter.annotation is DriverTable)

        @functools.wraps(command)
        def with_flags(**arguments: Any) -> None:
            given = {DRIVER_FLAGS[flag].setting: arguments.pop(flag) for flag in taken}
            command(**arguments, **{table: {name: value for name, value in given.items() if value is not None}})

        options = []
        for flag, help_text in taken.items():
            _, kind, metavar, standard_help = DRIVER_FLAGS[flag]
            option = typer.Option(metavar=metavar, help=help_text or standard_help, parser=_READERS[kind])
            hint: Any = Annotated[kind | None, option]
            options.append(inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            parameters += options if name == table else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_flags

    return decorate
