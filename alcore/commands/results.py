"""What a command says of a run when it ends: its result, what to do next, and the exit code."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alcore.codec import export_json
from alcore.commands.messages import say
from alcore.commands.options import DEFAULT_ROOT
from alcore.commands.tables import curve, losses
from alcore.store.endings import untrained
from alcore.store.reading import Run

if TYPE_CHECKING:
    from alcore.driver import Driver

FINAL_TRAINING = "--set driver.final_training=true"


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
    from alcore.strategies.label_options import is_told

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
        told = is_told(driver.label_strategy)
        commands = {**(to_tell if told else {}), resume_command(driver.log_dir, names_code=driver.names_code): "go on"}
        width = max(map(len, commands))
        return "\n".join([*lines, f"{str(reason).capitalize()}.", "Next:",
                          *(f"  {command:<{width}}  {what}" for command, what in commands.items())])  # fmt: skip
    lines.append(f"Ended: {reason}.")
    if left := untrained(run.untrained_labels()):  # reported as failed before, where the run has not done its steps
        lines.append(f"{left}: {resume_command(driver.log_dir, names_code=driver.names_code)} {FINAL_TRAINING}")
    if failed := [request for request in run.requests() if request["state"] == "failed"]:
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


def at_a_time(at_once: int) -> str:
    """Say how many requests a label strategy works on at the same time."""
    return "one at a time" if at_once == 1 else f"up to {at_once} at a time"


def shell_name(folder: Path) -> str:
    """Return what to call a run on the command line: its id where that is enough, else its folder, quoted."""
    usual = folder.resolve().parent == DEFAULT_ROOT.resolve()
    return folder.name if usual else shlex.quote(str(folder))
