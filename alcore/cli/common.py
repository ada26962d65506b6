"""What `alcore run` and `alcore resume` share: build, run until the end or an interruption, and report."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from alcore import plugins
from alcore.cli.progress import Console, Progress
from alcore.cli.tables import curve, losses
from alcore.codec import export_json
from alcore.driver import Driver
from alcore.errors import AlcoreError, UsageError
from alcore.experiment import Experiment
from alcore.experiment import build as builder
from alcore.experiment.resolve import Resolved, resolve
from alcore.store.reading import Run

__all__ = ["Progress", "build", "headline", "prepare", "report", "run"]


def prepare() -> plugins.Registry:
    """Show warnings in the command's own words, and look at what is installed."""
    if rank():  # rank 0 speaks for all
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
        sys.stderr = _NoTerminal(sys.stderr)  # so that no bar is drawn twice
    logging.getLogger("alcore").addHandler(Console(logging.CRITICAL if rank() else logging.WARNING))
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    registry = plugins.registry()
    for plugin in registry.plugins:
        if plugin.state in ("broken", "refused"):
            say(f"warning: plugin {plugin} could not be loaded: {plugin.error}.")
    return registry


def check_restart(run_id: str | None, resume: str) -> None:
    """Refuse a restart by the launcher that would begin another run."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts != "0" and (run_id is None or resume != "auto"):
        raise UsageError(
            f"this is restart {restarts} by torchrun, and which run to go on with is not known: give the command "
            "--run-id ID --resume auto, so that each start of it goes on with the same run."
        )


def rank() -> int:
    """Return the number of this process, as torchrun sets it."""
    return int(os.environ.get("RANK", "0"))


def say(text: str) -> None:
    """Print a line on stderr, on rank 0 alone."""
    if not rank():
        typer.echo(text if text.startswith("\n") else f"alcore: {text}", err=True)


class _NoTerminal:
    """A stream that says that it is no terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def build(
    experiment: Experiment,
    registry: plugins.Registry,
    *,
    run_id: str | None,
    progress: Progress | None,
    allow_code: bool,
) -> tuple[Resolved, Driver]:
    """Build the driver of an experiment."""
    resolved = resolve(experiment, registry, allow_code=allow_code)
    observers = [] if progress is None else [progress]
    return resolved, builder.build(resolved, registry, run_id=run_id, observers=observers)


def run(driver: Driver) -> None:
    """Run a driver; the first ctrl-C or SIGTERM ends it at the next safe point, the second at once."""
    try:
        with _signals(driver):
            driver.run()
    except KeyboardInterrupt:
        say(
            f"interrupted in step {driver.active_learning_step_idx}; every label so far is in "
            f"{driver.log_dir}. Go on with: alcore resume {name(driver)}"
        )
        raise typer.Exit(130) from None
    except Exception as error:
        if driver.log_dir.is_dir() and not (isinstance(error, AlcoreError) and error.exit_code == 2):
            say(
                f"what was gathered is in {driver.log_dir}. When the cause is mended, go on with: "
                f"alcore resume {name(driver)}"
            )
        raise


@contextlib.contextmanager
def _signals(driver: Driver) -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt the driver; a second one ends it wherever it is."""

    def handle(number: int, _frame: Any) -> None:
        if driver.interrupted:
            raise KeyboardInterrupt
        say(f"\nalcore: {signal.Signals(number).name}: ending at the next safe point; once more ends at once.")
        driver.interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def headline(resolved: Resolved, driver: Driver) -> str:
    """Return one line that says what is run."""
    parts = resolved.experiment.parts
    names = {kind: ", ".join(part.use for part in parts[kind]) or "none" for kind in parts}
    threads = resolved.settings.driver.threads
    start = f"start {names['start']}, " if parts["start"] else ""
    return (
        f"Run {driver.run_id}: data {names['data']}, learner {names['learner']}, {start}query {names['query']}, "
        f"label {names['label']}, metrology {names['metrology']}; seed {driver.config.seed}, {driver.device}, "
        f"{threads} thread{'s' if threads != 1 else ''}"
        + (f" on each of {driver.ranks.size} ranks" if driver.ranks.size > 1 else "")
    )


def report(driver: Driver, *, as_json: bool, quiet: bool) -> None:
    """Print the result on stdout: as JSON, as the run directory alone, or as a curve with what to do next."""
    if not driver.ranks.main:
        return
    result = Run(driver.log_dir)
    records = result.records()
    if as_json:
        summary = result.summary()
        content = {
            "run_id": summary.run_id,
            "log_dir": str(driver.log_dir),
            "status": summary.status,
            "reason": summary.reason,
            "steps": summary.steps,
            "labels": summary.labels,
            "metrics": records,
        }
        typer.echo(export_json(content), nl=False)
        return
    if quiet:
        typer.echo(str(driver.log_dir))
        return
    typer.echo("")
    typer.echo((curve(records, 8) if records else losses(result.steps(), 8)) + "\n")
    typer.echo(f"Ended: {driver.stop_reason}.")
    failed = [one for one in result.requests() if one["state"] == "failed"]
    if failed:
        typer.echo(f"{len(failed)} requests could not be labelled; alcore show {name(driver)} says why.")
    typer.echo(f"Outputs: {driver.log_dir}{os.sep}")
    outputs = [
        ("driver_log.json", "what each step did"),
        *((f"{strategy}.json", "its records") for strategy in records),
        ("ckpt/", "weights and training state"),
        ("experiment.toml", f"run it again with: alcore run {shlex.quote(str(driver.log_dir / 'experiment.toml'))}"),
    ]
    width = max(22, *(len(file) for file, _ in outputs))
    for file, what in outputs:
        typer.echo(f"  {file:<{width}} {what}")
    typer.echo(f"Next: alcore show {name(driver)}")


def name(driver: Driver) -> str:
    """Return what to call a run on the command line: its id where that is enough, else its folder."""
    usual = Path(driver.config.root_log_dir) == Path("active_learning_logs")
    return driver.run_id if usual else shlex.quote(str(driver.log_dir))


def _show_warning(message: Warning | str, *_where: Any) -> None:
    say(f"warning: {message}")
