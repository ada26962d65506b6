"""Prepare, build and run the Driver of an experiment, as ``alcore run`` does: warnings, progress bar, signals."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from alcore.commands.exits import INTERRUPTED, end_at_once
from alcore.commands.messages import rank, say
from alcore.commands.options import installed_plugins
from alcore.commands.progress import Progress, WarningHandler
from alcore.commands.results import at_a_time, from_here, resume_command
from alcore.errors import AlcoreError, UsageError, is_importing
from alcore.plugins.registry import Registry
from alcore.store.reading import Run

if TYPE_CHECKING:
    from alcore.driver import Driver
    from alcore.experiment import Experiment, Resolved


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


def prepare(context: typer.Context) -> Registry:
    """Show warnings as messages of the command, silence ranks other than 0, and return what is installed.

    Parameters
    ----------
    context
        That of the command, which knows what is installed.
    """
    if rank():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
        sys.stderr = _NotATerminal(sys.stderr)  # else each rank would draw its progress bar
    _show_warnings_of_runs()
    warnings.showwarning = lambda message, *_where: say(f"warning: {message}")
    registry = installed_plugins(context)
    for plugin in registry.plugins:
        if plugin.state in ("broken", "refused"):
            say(f"warning: plugin {plugin} could not be loaded: {plugin.error}.")
    return registry


def _show_warnings_of_runs() -> None:
    """Print what runs warn of; once, also where the command was called in this process before."""
    logger = logging.getLogger("alcore")
    for handler in [handler for handler in logger.handlers if isinstance(handler, WarningHandler)]:
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
    """Set what ``--set`` gives; what can't be set is listed with all other faults of the experiment."""
    for text in assign or []:
        try:
            experiment.set(text)
        except UsageError as error:
            experiment.faults.append(str(error))


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


def _headline(resolved: Resolved, driver: Driver) -> str:
    """Return one line that says what is run."""
    import torch

    from alcore.strategies.label_options import most_at_once

    names = {kind: ", ".join(part.given.use for part in parts) or "none" for kind, parts in resolved.parts.items()}
    start = f"start {names['start']}, " if resolved.parts["start"] else ""
    threads = torch.get_num_threads()
    at_once = most_at_once(driver.label_strategy)
    label = "" if at_once is None else f" ({at_a_time(at_once)})"
    return (
        f"Run {driver.run_id}: data {names['data']}, learner {names['learner']}, {start}query {names['query']}, "
        f"label {names['label']}{label}, metrology {names['metrology']}; seed {driver.config.seed}, {driver.device}, "
        f"{threads} thread{'s' if threads != 1 else ''}"
        + (f" on each of {driver.ranks.size} ranks" if driver.ranks.size > 1 else "")
    )


def check_restart(run_id: str | None, resume: str) -> None:
    """Refuse a restart by torchrun that would begin another run."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts != "0" and (run_id is None or resume != "auto"):
        raise UsageError(
            f"this is restart {restarts} by torchrun, and which run to go on with is not known: give the command "
            "--run-id ID --resume auto, so that each start of it goes on with the same run."
        )
