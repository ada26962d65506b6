"""``alcore check``: try an experiment before a campaign, and say what it will take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from alcore.commands import (
    AllowCodeOfFile,
    DriverTable,
    ExperimentFile,
    NewRunId,
    ResultAsJson,
    Target,
    at_a_time,
    complete_experiment,
    from_here,
    prepare,
    results_alone,
    resume_command,
    takes_driver_flags,
)
from alcore.store import export_json, figures

if TYPE_CHECKING:
    from alcore_check.checking import Check, Forecast


@takes_driver_flags()
def check(
    *,
    experiment: ExperimentFile = None,
    target: Target = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KIND.NAME.PARAMETER=VALUE", help="Any parameter, as in alcore run; may repeat."),
    ] = None,
    driver_table: DriverTable,
    run_id: NewRunId = None,
    no_label: Annotated[bool, typer.Option("--no-label", help="Buy no label.")] = False,
    allow_code: AllowCodeOfFile = False,
    as_json: ResultAsJson = False,
) -> None:
    """Try an experiment: one training, one query, one label, one checkpoint, timed, with a forecast of the rest.

    The label is kept: what was begun is a run, and `alcore resume` goes on with it. Exit code 1 if a part fails.
    """
    from alcore.experiment import Experiment
    from alcore_check.checking import check_experiment

    registry = prepare()
    chosen = Experiment() if experiment is None else Experiment.open(experiment, registry)
    complete_experiment(chosen, target, assign, driver_table)
    with results_alone():
        found = check_experiment(chosen, registry, run_id=run_id, allow_code=allow_code, with_label=not no_label)
    if as_json:
        typer.echo(export_json(dataclasses.asdict(found) | {"folder": str(found.folder)}), nl=False)
    else:
        typer.echo("\n".join(_lines(found)))
    if found.faults:
        raise typer.Exit(1)


def _lines(found: Check) -> list[str]:
    """Return what was found, in words."""
    folder = from_here(found.folder)
    begun = found.folder.is_dir()
    lines = [f"Run {found.run_id}, up to its first label: {folder}" if begun else "No run was begun.", ""]
    lines += _phases(found)
    if found.forecast is not None:
        lines += ["", *_forecast(found.forecast, found.free, found.at_once)]
    if found.notes:
        lines += ["", *(f"Note: {note}." for note in found.notes)]
    lines += ["", *(f"Fault: {fault.rstrip('.')}." for fault in found.faults)]
    if not found.faults:
        lines.append("No faults were found.")
    if begun:
        wish = "Go on with" if not found.faults else "Once the cause is fixed, go on with"
        lines.append(f"{wish}: {resume_command(found.folder, names_code=found.names_code)}")
    return lines


def _phases(found: Check) -> list[str]:
    """Return a line for each part that was tried: how long it took, and what came of it."""
    rehearsed = ", in a rehearsal" if found.rehearsed else ""
    measured = "; ".join(
        f"{strategy}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures(record).items() if name != "step")
        for strategy, record in found.metrics.items()
    )
    said = {
        "start": "data, learner, strategies, run directory",
        "training": f"on {found.labeled} labels{rehearsed}",
        "metrology": measured + rehearsed,
        "query": f"{found.asked} of {found.candidates} candidates{rehearsed}",
        "label": (f"1 label, which cost {found.cost:g}" if found.cost is not None else "") + _at_a_time(found),
        "resume": f"of a copy; a checkpoint has {_bytes(found.checkpoint)}",
    }
    lines = [
        f"{name:<10} {_time(found.seconds[name]):>9}  {text}" for name, text in said.items() if name in found.seconds
    ]
    if found.peak is not None:
        lines.append(f"{'memory':<10} {_bytes(found.peak):>9}  of this process at most")
    return lines


def _at_a_time(found: Check) -> str:
    return "" if found.at_once is None else f"; the run gets {at_a_time(found.at_once)}"


def _forecast(one: Forecast, free: int, at_once: int | None) -> list[str]:
    lines = [f"Forecast for {one.steps} steps and {one.labels} labels, from this one step:"]
    if one.labeling is not None:
        several = at_once is not None and at_once > 1
        how = f"if up to {at_once} labels of a step are got at a time" if several else "if one label follows the other"
        lines.append(f"{'labeling':<10} {_time(one.labeling):>9}  {how}")
    lines += [
        f"{'computing':<10} {_time(one.computing):>9}  if an epoch grows with its batches",
        f"{'cost':<10} {one.cost:>9.6g}  of all labels",
        f"{'disk':<10} {_bytes(one.bytes):>9}  of {_bytes(free)} that are free",
    ]
    return lines


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s"


def _bytes(number: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if number >= 10**power:
            return f"{number / 10**power:.1f} {unit}"
    return f"{number} B"
