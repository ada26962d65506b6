"""``alcore run``: build a Driver from names and parameters, and run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from alcore.cli.resume import InDoubt, OtherRanks

_PARTS = "Parts (`alcore plugins` lists them)"


def run(
    experiment: Annotated[
        Path | None,
        typer.Argument(metavar="EXPERIMENT.toml", help="Experiment file; flags override it.", show_default=False),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Query strategy [uq]; may repeat.", rich_help_panel=_PARTS),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Query strategy that begins, if nothing is labelled.", rich_help_panel=_PARTS
        ),
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
    keep: Annotated[
        str | None,
        typer.Option(metavar="RULES", help="Checkpoints to keep, e.g. last=3,best=f1,every=10; all by default."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random [0].")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Where to compute [cpu].")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="Floating-point type [float32].")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads; chosen by the learner's size.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Queue from query to labeling [fifo].")] = None,
    run_id: Annotated[str | None, typer.Option(metavar="ID", help="Name of the run; made up if not given.")] = None,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(
            "--resume", help="auto: go on with the run of this id, if there is one; for restarts by torchrun."
        ),
    ] = "never",
    in_doubt: InDoubt = None,
    other_ranks: OtherRanks = False,
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
    from alcore.cli import running
    from alcore.experiment import Experiment
    from alcore.store.files import write_whole

    running.check_restart(run_id, resume)
    registry = running.prepare()
    chosen = Experiment() if experiment is None else Experiment.read(experiment)
    lists = {"query": query, "metrology": metrology, "stop": stop, "observe": observe}
    singles = {"start": start, "label": label, "loop": loop, "data": data, "learner": learner}
    for kind, names in {**lists, **{kind: name and [name] for kind, name in singles.items()}}.items():
        if names:
            chosen.choose(kind, names)
    chosen.complete()
    for text in assign or []:
        chosen.set(text)
    flags = {
        "max_active_learning_steps": steps, "batch_size": batch_size, "budget": budget, "seed": seed, "device": device,
        "dtype": dtype, "threads": threads, "queue": queue, "keep": keep,
        "root_log_dir": None if root is None else str(root),
    }  # fmt: skip
    chosen.settings["driver"] |= {name: value for name, value in flags.items() if value is not None}

    progress = None if quiet else running.Progress()
    resolved, driver = running.build(chosen, registry, run_id=run_id, progress=progress, allow_code=allow_code)
    if progress is not None and not as_json:
        progress.headline = running.headline(resolved, driver)
    if resume == "auto" and driver.ranks.share((driver.log_dir / "run.db").is_file):
        driver.restore(in_doubt=in_doubt, other_ranks=other_ranks)
        if driver.ranks.main and driver.description is not None:  # more steps or another budget, perhaps
            write_whole(driver.log_dir / "experiment.toml", driver.description, durable=True)
    running.run(driver)
    running.report(driver, as_json=as_json, quiet=quiet)
