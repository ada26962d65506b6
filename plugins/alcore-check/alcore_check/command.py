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
    context: typer.Context,
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

    registry = prepare(context)
    chosen = Experiment() if experiment is None else Experiment.open(experiment, registry)
    complete_experiment(chosen, target, assign, driver_table)
    with results_alone():
        checked = check_experiment(chosen, registry, run_id=run_id, allow_code=allow_code, with_label=not no_label)
    if as_json:
        typer.echo(export_json(dataclasses.asdict(checked) | {"folder": str(checked.folder)}), nl=False)
    else:
        typer.echo("\n".join(_lines(checked)))
    if checked.faults:
        raise typer.Exit(1)


def _lines(checked: Check) -> list[str]:
    """Return what was found, in words."""
    folder = from_here(checked.folder)
    begun = checked.folder.is_dir()
    lines = [f"Run {checked.run_id}, up to its first label: {folder}" if begun else "No run was begun.", ""]
    lines += _phases(checked)
    if checked.forecast is not None:
        lines += ["", *_forecast(checked.forecast, checked.free, checked.at_once)]
    if checked.notes:
        lines += ["", *(f"Note: {note}." for note in checked.notes)]
    lines += ["", *(f"Fault: {fault.rstrip('.')}." for fault in checked.faults)]
    if not checked.faults:
        lines.append("No faults were found.")
    if begun:
        wish = "Go on with" if not checked.faults else "Once the cause is fixed, go on with"
        lines.append(f"{wish}: {resume_command(checked.folder, names_code=checked.names_code)}")
    return lines


def _phases(checked: Check) -> list[str]:
    """Return a line for each part that was tried: how long it took, and what came of it."""
    rehearsed = ", in a rehearsal" if checked.rehearsed else ""
    measured = "; ".join(
        f"{strategy}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures(record).items() if name != "step")
        for strategy, record in checked.metrics.items()
    )
    said = {
        "start": "data, learner, strategies, run directory",
        "training": f"on {checked.labeled} labels{rehearsed}",
        "metrology": measured + rehearsed,
        "query": f"{checked.asked} of {checked.candidates} candidates{rehearsed}",
        "label": (f"1 label, which cost {checked.cost:g}" if checked.cost is not None else "") + _at_a_time(checked),
        "resume": f"of a copy; a checkpoint has {_bytes(checked.checkpoint)}",
    }
    lines = [
        f"{name:<10} {_time(checked.seconds[name]):>9}  {text}"
        for name, text in said.items()
        if name in checked.seconds
    ]
    if checked.peak is not None:
        lines.append(f"{'memory':<10} {_bytes(checked.peak):>9}  of this process at most")
    return lines


def _at_a_time(checked: Check) -> str:
    return "" if checked.at_once is None else f"; the run gets {at_a_time(checked.at_once)}"


def _forecast(forecast: Forecast, free: int, at_once: int | None) -> list[str]:
    lines = [f"Forecast for {forecast.steps} steps and {forecast.labels} labels, from this one step:"]
    if forecast.labeling is not None:
        several = at_once is not None and at_once > 1
        how = f"if up to {at_once} labels of a step are got at a time" if several else "if one label follows the other"
        lines.append(f"{'labeling':<10} {_time(forecast.labeling):>9}  {how}")
    lines += [
        f"{'computing':<10} {_time(forecast.computing):>9}  if an epoch grows with its batches",
        f"{'cost':<10} {forecast.cost:>9.6g}  of all labels",
        f"{'disk':<10} {_bytes(forecast.bytes):>9}  of {_bytes(free)} that are free",
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
