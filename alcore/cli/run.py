"""``alcore run``: build a Driver from names and parameters, and run it."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alcore import plugins
from alcore.errors import AlcoreError

if TYPE_CHECKING:
    from alcore.driver import Driver

_PARTS = "Parts (`alcore plugins` lists them)"
_SETTINGS = "Settings"


def run(
    experiment: Annotated[
        Path | None,
        typer.Argument(metavar="EXPERIMENT.toml", help="Experiment file; flags override it.", show_default=False),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Query strategy [uq]; may repeat.", rich_help_panel=_PARTS),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="Label strategy [dummy].", rich_help_panel=_PARTS)
    ] = None,
    metrology: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Metrology strategy [f1]; may repeat.", rich_help_panel=_PARTS),
    ] = None,
    loop: Annotated[
        str | None, typer.Option(metavar="NAME", help="Training loop [default].", rich_help_panel=_PARTS)
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="NAME", help="Data [moons].", rich_help_panel=_PARTS)] = None,
    learner: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Learner [mlp], or your own package.module:name.", rich_help_panel=_PARTS),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Stop criterion; may repeat.", rich_help_panel=_PARTS),
    ] = None,
    observe: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Observer; may repeat.", rich_help_panel=_PARTS)
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND.NAME.PARAMETER=VALUE",
            help="Any parameter, e.g. query.uq.max_samples=5; may repeat.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="End after so many steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Items in a training batch.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="COST", help="What all labels may cost; one costs 1.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random [0].")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Where to compute [cpu].")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="Floating-point type [float32].")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads; chosen by the learner's size.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Queue from query to labeling [fifo].")] = None,
    run_id: Annotated[str | None, typer.Option(metavar="ID", help="Name of the run; made up if not given.")] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where run directories are [active_learning_logs].")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that the experiment file names.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the run directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run active learning: train, measure, choose samples, get their labels, and again.

    Without arguments it runs on the built-in two-moons problem.
    """
    from alcore import build
    from alcore.cli.progress import Console, Progress
    from alcore.experiment import Experiment, resolve

    sys.path.insert(0, str(Path.cwd()))  # the user's own package.module:name, as with python -m
    logging.getLogger("alcore").addHandler(Console(logging.WARNING))
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    registry = plugins.registry()
    warn_of_broken(registry)

    chosen = Experiment() if experiment is None else Experiment.read(experiment)
    lists = {"query": query, "metrology": metrology, "stop": stop, "observe": observe}
    singles = {"label": label, "loop": loop, "data": data, "learner": learner}
    for kind, names in {**lists, **{kind: name and [name] for kind, name in singles.items()}}.items():
        if names:
            chosen.choose(kind, names)
    chosen.complete()
    for text in assign or []:
        chosen.set(text)
    flags = {
        "max_active_learning_steps": steps, "batch_size": batch_size, "budget": budget, "seed": seed, "device": device,
        "dtype": dtype, "threads": threads, "queue": queue, "root_log_dir": None if root is None else str(root),
    }  # fmt: skip
    chosen.settings["driver"] |= {name: value for name, value in flags.items() if value is not None}

    resolved = resolve(chosen, registry, allow_code=allow_code)
    progress = Progress()
    driver = build.build(resolved, registry, run_id=run_id, observers=[] if quiet else [progress])
    progress.headline = "" if as_json else _headline(resolved, driver)
    _run(driver)
    _report(driver, as_json=as_json, quiet=quiet)


def _show_warning(message: Warning | str, *_where: Any) -> None:
    typer.echo(f"alcore: warning: {message}", err=True)


def warn_of_broken(registry: plugins.Registry) -> None:
    """Say on stderr which plugins could not be loaded."""
    for plugin in registry.plugins:
        if plugin.state in ("broken", "refused"):
            typer.echo(f"alcore: warning: plugin {plugin} could not be loaded: {plugin.error}.", err=True)


def _run(driver: Driver) -> None:
    try:
        driver.run()
    except KeyboardInterrupt:
        typer.echo(
            f"alcore: interrupted in step {driver.active_learning_step_idx}; every label so far is in "
            f"{driver.log_dir}. "
            f"Look at it with: alcore show {_name(driver)}",
            err=True,
        )
        raise typer.Exit(130) from None
    except AlcoreError as error:
        if driver.log_dir.is_dir() and error.exit_code != 2:
            typer.echo(f"alcore: what was gathered is in {driver.log_dir}.", err=True)
        raise
    except Exception:
        if driver.log_dir.is_dir():
            typer.echo(f"alcore: what was gathered is in {driver.log_dir}.", err=True)
        raise


def _headline(resolved: Any, driver: Driver) -> str:
    parts = resolved.experiment.parts
    names = {kind: ", ".join(part.use for part in parts[kind]) or "none" for kind in parts}
    threads = resolved.settings.driver.threads
    return (
        f"Run {driver.run_id}: data {names['data']}, learner {names['learner']}, query {names['query']}, "
        f"label {names['label']}, metrology {names['metrology']}; seed {driver.config.seed}, {driver.device}, "
        f"{threads} thread{'s' if threads != 1 else ''}"
    )


def _report(driver: Driver, *, as_json: bool, quiet: bool) -> None:
    from alcore.cli.tables import curve, losses
    from alcore.store.codec import export_json
    from alcore.store.reading import Run

    result = Run(driver.log_dir)
    if as_json:
        summary = result.summary()
        typer.echo(
            export_json(
                {
                    "run_id": summary.run_id,
                    "log_dir": str(driver.log_dir),
                    "status": summary.status,
                    "reason": summary.reason,
                    "steps": summary.steps,
                    "labels": summary.labels,
                    "metrics": result.records(),
                }
            ),
            nl=False,
        )
        return
    if quiet:
        typer.echo(str(driver.log_dir))
        return
    typer.echo("")
    records = result.records()
    typer.echo((curve(records, 8) if records else losses(result.steps(), 8)) + "\n")
    typer.echo(f"Ended: {driver.stop_reason}.")
    typer.echo(f"Outputs: {driver.log_dir}{os.sep}")
    for name, what in [
        ("driver_log.json", "what each step did"),
        *((f"{strategy}.json", "its records") for strategy in records),
        ("ckpt/", "weights and training state"),
        ("experiment.toml", "run it again with: alcore run " + str(driver.log_dir / "experiment.toml")),
    ]:
        typer.echo(f"  {name:<22} {what}")
    typer.echo(f"Next: alcore show {_name(driver)}")


def _name(driver: Driver) -> str:
    default = Path(driver.config.root_log_dir) == Path("active_learning_logs")
    return (
        driver.run_id
        if default
        else json.dumps(str(driver.log_dir))
        if " " in str(driver.log_dir)
        else str(driver.log_dir)
    )
