"""What several commands share: options, messages, and building, running and reporting a Driver.

Importing this module imports no torch, so that commands that need none answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from alcore.cli.interruption import INTERRUPTED, end_at_once
from alcore.cli.messages import rank as rank
from alcore.cli.messages import say as say
from alcore.cli.progress import Progress, WarningHandler
from alcore.cli.text_tables import curve, losses
from alcore.codec import export_json
from alcore.errors import AlcoreError, UsageError, is_importing
from alcore.plugins.registry import Registry, installed
from alcore.store.endings import untrained
from alcore.store.reading import Run

if TYPE_CHECKING:
    from alcore.driver import Driver
    from alcore.experiment import Experiment, Resolved

DEFAULT_ROOT = Path("active_learning_logs")
FINAL_TRAINING = "--set driver.final_training=true"

# -- options ---------------------------------------------------------------------------------------------------


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


def _run_names(incomplete: str) -> list[str]:
    """Complete the id of a run in the folder of runs."""
    return sorted(
        one.parent.name for one in DEFAULT_ROOT.glob("[!.]*/run.db") if one.parent.name.startswith(incomplete)
    )


RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run id, the start of one, or a run directory.", autocompletion=_run_names),
]
Root = Annotated[Path, typer.Option(metavar="DIR", help="Where run directories are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the run directory.")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run code and programs that the run's experiment names.")]
LearnerOfRun = Annotated[
    str | None,
    typer.Option(
        "--learner",
        metavar="NAME",
        autocompletion=names_of("learner"),
        help="What makes the learner, for a run built in Python: package.module:name.",
    ),
]
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
NewRunId = Annotated[str | None, typer.Option(metavar="ID", help="Name of the run; made up if not given.")]
AllowCodeOfFile = Annotated[
    bool, typer.Option("--allow-code", help="Run code and programs that the experiment file names.")
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="COLUMN", help="What to predict, if the data has a parameter `target`.", show_default=False
    ),
]
OtherRanks = Annotated[
    bool, typer.Option("--other-ranks", help="Go on with another number of processes than the run began with.")
]
DriverTable = Annotated[dict[str, Any], "what flags set in the table [driver]; see takes_driver_flags"]


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
        The flags, each with the help text of this command; None takes the one in `DRIVER_FLAGS`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        (table,) = (name for name, one in signature.parameters.items() if one.annotation is DriverTable)

        @functools.wraps(command)
        def with_flags(**arguments: Any) -> None:
            given = {DRIVER_FLAGS[flag].setting: arguments.pop(flag) for flag in flags}
            command(**arguments, **{table: {name: value for name, value in given.items() if value is not None}})

        options = []
        for flag, help_text in flags.items():
            _, kind, metavar, standard_help = DRIVER_FLAGS[flag]
            option = typer.Option(metavar=metavar, help=help_text or standard_help, parser=_READERS[kind])
            hint: Any = Annotated[kind | None, option]
            options.append(inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
        parameters: list[inspect.Parameter] = []
        for name, one in signature.parameters.items():
            parameters += options if name == table else [one.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_flags

    return decorate


# -- messages --------------------------------------------------------------------------------------------------


def results_alone() -> contextlib.AbstractContextManager[Any]:
    """Keep what parts of a run print from stdout, which is for results; it goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr)


class _NotATerminal:
    """A stream that is not a terminal, whatever the stream that it wraps is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare() -> Registry:
    """Show warnings as messages of the command, silence ranks other than 0, and return what is installed."""
    if rank():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
        sys.stderr = _NotATerminal(sys.stderr)  # else each rank would draw its progress bar
    _show_warnings_of_runs()
    warnings.showwarning = lambda message, *_where: say(f"warning: {message}")
    registry = installed()
    for plugin in registry.plugins:
        if plugin.state in ("broken", "refused"):
            say(f"warning: plugin {plugin} could not be loaded: {plugin.error}.")
    return registry


def _show_warnings_of_runs() -> None:
    """Print what runs warn of; once, also where the command was called in this process before."""
    logger = logging.getLogger("alcore")
    for handler in [one for one in logger.handlers if isinstance(one, WarningHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(WarningHandler(logging.CRITICAL if rank() else logging.WARNING))


def read_experiment(run: Run, assign: list[str] | None, unset: list[str] | None) -> Experiment:
    """Return the experiment of a run, with the changes of ``--set`` and ``--unset``."""
    from alcore.experiment import Experiment

    experiment = Experiment.read(run.folder / "experiment.toml")
    experiment.complete()
    for text in unset or []:
        experiment.unset(text)
    set_parameters(experiment, assign)
    return experiment


def complete_experiment(
    experiment: Experiment, target: str | None, assign: list[str] | None, driver_table: dict[str, Any]
) -> None:
    """Complete the experiment of a new run, with what ``--target``, ``--set`` and the driver's flags give."""
    experiment.complete()
    if "weights" in driver_table:  # not those that the file names
        experiment.settings["driver"].pop("weights_sha256", None)
    if target is not None:
        experiment.parts["data"][0].values["target"] = target
    set_parameters(experiment, assign)
    experiment.settings["driver"] = {"final_training": True} | experiment.settings["driver"] | driver_table


def set_parameters(experiment: Experiment, assign: list[str] | None) -> None:
    """Set what ``--set`` gives; what can't be set is told of with all other faults of the experiment."""
    for text in assign or []:
        try:
            experiment.set(text)
        except UsageError as error:
            experiment.faults.append(str(error))


# -- runs ------------------------------------------------------------------------------------------------------


def build_driver(
    experiment: Experiment, registry: Registry, *, run_id: str | None, allow_code: bool, quiet: bool, as_json: bool
) -> Driver:
    """Return the Driver of an experiment, with a progress bar unless `quiet`."""
    from alcore.experiment import build, resolve

    progress = Progress()
    with results_alone():
        resolved = resolve(experiment, registry, allow_code=allow_code)
        driver = build(resolved, run_id=run_id, observers=[] if quiet else [progress])
    if not as_json:
        progress.headline = _headline(resolved, driver)
    return driver


def run_driver(driver: Driver, *, is_resumed: bool = False) -> None:
    """Run a driver; the first ctrl-C or SIGTERM ends it at the next safe point, the second at once.

    Parameters
    ----------
    driver
        The driver.
    is_resumed
        Whether it has restored its run.
    """
    database = driver.log_dir / "run.db"
    # else a folder that is there is another run's, of which nothing may be said
    is_own = is_resumed or driver.config.resume == "auto" or not database.is_file()

    def interrupted() -> str:
        if not (is_own and database.is_file()):
            return "interrupted before the run began."
        return (
            f"interrupted in step {driver.active_learning_step_idx}; every label so far is in "
            f"{from_here(driver.log_dir)}. Go on with: {resume_command(driver.log_dir, names_code=driver.names_code)}"
        )

    try:
        with _Signals(driver, interrupted) as signals, results_alone():
            driver.run()
    except KeyboardInterrupt:
        say(interrupted())
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if driver.log_dir.is_dir() and not (isinstance(error, AlcoreError) and error.exit_code == 2):
            say(
                f"what was gathered is in {from_here(driver.log_dir)}. Once the cause is fixed, go on with: "
                f"{resume_command(driver.log_dir, names_code=driver.names_code)}"
            )
        raise
    if signals.came:
        say(f"interrupted when the run had ended: {driver.stop_reason}. It is in {from_here(driver.log_dir)}")
        raise typer.Exit(INTERRUPTED)


class _Signals:
    """Lets SIGINT and SIGTERM interrupt the driver at a safe point; a second signal ends it at once.

    Parameters
    ----------
    driver
        The driver.
    interrupted
        Returns what to say where the second signal can't raise, since a module is being imported.

    Attributes
    ----------
    came : bool
        Whether a signal came.
    """

    def __init__(self, driver: Driver, interrupted: Callable[[], str]) -> None:
        self._driver, self._interrupted = driver, interrupted
        self._before: dict[signal.Signals, Any] = {}
        self.came = False

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._driver.interrupted:
            if is_importing(frame):
                end_at_once(self._interrupted())
            raise KeyboardInterrupt
        self.came = True
        if not rank():
            print(file=sys.stderr)  # ends the line of the progress bar
        say(f"{signal.Signals(number).name}: ending at the next safe point; once more ends at once.")
        self._driver.interrupt()


def write_experiment(driver: Driver) -> None:
    """Write the experiment of a run that goes on, since steps, budget or retention may have changed."""
    from alcore.store.files import write_whole

    if driver.ranks.main and driver.description is not None:
        write_whole(driver.log_dir / "experiment.toml", driver.description, durable=True)


def report(driver: Driver, *, as_json: bool, quiet: bool) -> None:
    """Print the result on stdout: as JSON, as the run directory alone, or as a learning curve and what to do next.

    Raises
    ------
    typer.Exit
        With code 1 where the run ended since its labels fail, and 3 where it waits for labels.
    """
    if driver.ranks.main:
        _print_result(driver, as_json=as_json, quiet=quiet)
    status = None if driver.end_reason is None else driver.end_reason.kind.status
    folder = from_here(driver.log_dir)
    if status == "failed":
        say(
            f"error: {driver.stop_reason}. What was gathered is in {folder}. Once the cause is fixed, go on with: "
            f"{resume_command(driver.log_dir, names_code=driver.names_code)}"
        )
        raise typer.Exit(1)
    if status == "waiting":
        if quiet or as_json:
            say(
                f"{driver.stop_reason}; once answers are told, go on with: "
                f"{resume_command(driver.log_dir, names_code=driver.names_code)}"
            )
        raise typer.Exit(3)


def _print_result(driver: Driver, *, as_json: bool, quiet: bool) -> None:
    result = Run(from_here(driver.log_dir))
    if as_json:
        typer.echo(export_json(_result(result)), nl=False)
    elif quiet:
        typer.echo(str(result.folder))
    else:
        typer.echo(_report_text(result, driver))


def resume_command(folder: Path, *, names_code: bool) -> str:
    """Return the command that goes on with a run, as it is to be typed here."""
    return f"alcore resume {shell_name(from_here(folder))}{_code_flag(names_code)}"


def _code_flag(names_code: bool) -> str:
    return " --allow-code" if names_code else ""


def from_here(folder: Path) -> Path:
    """Return a folder relative to the working directory, where it is inside it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _result(run: Run) -> dict[str, Any]:
    summary = run.summary()
    return {
        "run_id": summary.run_id,
        "log_dir": str(run.folder),
        "status": summary.status,
        "end": run.meta().get("end"),
        "reason": summary.reason,
        "steps": summary.steps,
        "labels": summary.labels,
        "untrained": run.untrained_labels(),
        "metrics": run.records(),
    }


def _report_text(run: Run, driver: Driver) -> str:
    reason, records = driver.end_reason, run.records()
    steps = run.steps()
    everything = f"alcore show {shell_name(run.folder)} --all"
    shown = curve(records, 8, everything) if records else losses(steps, 8, everything)
    lines = ["", shown, ""] if records or steps else [""]
    if reason is not None and reason.kind.status == "waiting":
        name = shell_name(run.folder)
        to_tell = {
            f"alcore ask {name} --out FILE.csv": "write what to label",
            f"alcore tell {name} FILE.csv": "tell the labels that were filled in",
        }
        told = getattr(driver.label_strategy, "told", True)
        commands = {**(to_tell if told else {}), resume_command(driver.log_dir, names_code=driver.names_code): "go on"}
        width = max(map(len, commands))
        return "\n".join([*lines, f"{str(reason).capitalize()}.", "Next:",
                          *(f"  {command:<{width}}  {what}" for command, what in commands.items())])  # fmt: skip
    lines.append(f"Ended: {reason}.")
    if left := untrained(run.untrained_labels()):  # reported as failed before, where the run has not done its steps
        lines.append(f"{left}: {resume_command(driver.log_dir, names_code=driver.names_code)} {FINAL_TRAINING}")
    if failed := [one for one in run.requests() if one["state"] == "failed"]:
        lines.append(f"{len(failed)} requests could not be labeled; alcore show {shell_name(run.folder)} says why.")
    again = f"alcore run {shlex.quote(str(run.folder / 'experiment.toml'))}{_code_flag(driver.names_code)}"
    outputs = [
        ("driver_log.json", "what each step did"),
        *((f"{strategy}.json", "its records") for strategy in records),
        ("ckpt/", "weights and training state"),
        ("experiment.toml", f"run it again with: {again}"),
    ]
    width = max(22, *(len(file) for file, _ in outputs))
    lines.append(f"Outputs: {run.folder}{os.sep}")
    lines += [f"  {file:<{width}} {what}" for file, what in outputs]
    lines.append(f"Next: alcore show {shell_name(run.folder)}")
    return "\n".join(lines)


def _headline(resolved: Resolved, driver: Driver) -> str:
    """Return one line that says what is run."""
    import torch

    names = {kind: ", ".join(part.use for part in parts) or "none" for kind, parts in resolved.parts.items()}
    start = f"start {names['start']}, " if resolved.parts["start"] else ""
    threads = torch.get_num_threads()
    at_once = getattr(driver.label_strategy, "at_once", None)
    label = "" if at_once is None else f" ({at_a_time(at_once)})"
    return (
        f"Run {driver.run_id}: data {names['data']}, learner {names['learner']}, {start}query {names['query']}, "
        f"label {names['label']}{label}, metrology {names['metrology']}; seed {driver.config.seed}, {driver.device}, "
        f"{threads} thread{'s' if threads != 1 else ''}"
        + (f" on each of {driver.ranks.size} ranks" if driver.ranks.size > 1 else "")
    )


def at_a_time(at_once: int) -> str:
    """Say how many requests a label strategy works on at the same time."""
    return "one at a time" if at_once == 1 else f"up to {at_once} at a time"


def shell_name(folder: Path) -> str:
    """Return what to call a run on the command line: its id where that is enough, else its folder, quoted."""
    usual = folder.resolve().parent == DEFAULT_ROOT.resolve()
    return folder.name if usual else shlex.quote(str(folder))


def check_restart(run_id: str | None, resume: str) -> None:
    """Refuse a restart by torchrun that would begin another run."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts != "0" and (run_id is None or resume != "auto"):
        raise UsageError(
            f"this is restart {restarts} by torchrun, and which run to go on with is not known: give the command "
            "--run-id ID --resume auto, so that each start of it goes on with the same run."
        )
