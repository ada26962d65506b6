"""``alcore run``: build a Driver from names and parameters, and run it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from alcore.cli import common


def _part(kind: str, help_text: str) -> Any:
    """Return the option of a flag that takes names of a kind, which shells complete."""
    return typer.Option(
        metavar="NAME",
        autocompletion=common.names_of(kind),
        help=help_text,
        rich_help_panel="Parts (`alcore plugins` lists them)",
    )


@common.takes_driver_flags(**dict.fromkeys(common.DRIVER_FLAGS))
def run(
    *,
    experiment: common.ExperimentFile = None,
    query: Annotated[
        list[str] | None, _part("query", "Query strategy [uq; for a regression: igs]; may repeat.")
    ] = None,
    start: Annotated[str | None, _part("query", "Query strategy that begins, if nothing is labeled.")] = None,
    label: Annotated[str | None, _part("label", "Label strategy [dummy].")] = None,
    metrology: Annotated[
        list[str] | None, _part("metrology", "Metrology strategy [f1; for a regression: regression]; may repeat.")
    ] = None,
    loop: Annotated[str | None, _part("loop", "Training loop [default].")] = None,
    data: Annotated[str | None, _part("data", "Data [moons], by name or as a file.")] = None,
    learner: Annotated[str | None, _part("learner", "Learner [mlp], or your own package.module:name.")] = None,
    stop: Annotated[list[str] | None, _part("stop", "Stop criterion; may repeat.")] = None,
    observe: Annotated[list[str] | None, _part("observe", "Observer; may repeat.")] = None,
    target: common.Target = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND.NAME.PARAMETER=VALUE",
            help="Any parameter, e.g. query.uq.max_samples=5; may repeat.",
        ),
    ] = None,
    driver_table: common.DriverTable,
    run_id: common.NewRunId = None,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(
            "--resume", help="auto: go on with the run of this id, if there is one; for restarts by torchrun."
        ),
    ] = "never",
    in_doubt: common.InDoubt = None,
    other_ranks: common.OtherRanks = False,
    allow_code: common.AllowCodeOfFile = False,
    quiet: common.Quiet = False,
    as_json: common.ResultAsJson = False,
) -> None:
    """Run active learning: train, measure, choose samples, get their labels, and again.

    Without arguments it runs on the built-in two-moons problem.
    """
    from alcore.experiment import Experiment

    common.check_restart(run_id, resume)
    registry = common.prepare()
    chosen = Experiment() if experiment is None else Experiment.open(experiment, registry)
    if data is not None:
        chosen.choose_data(data, registry)
    lists = {"query": query, "metrology": metrology, "stop": stop, "observe": observe}
    singles = {"start": start, "label": label, "loop": loop, "learner": learner}
    for kind, names in {**lists, **{kind: name and [name] for kind, name in singles.items()}}.items():
        if names:
            chosen.choose(kind, names)
    common.complete_experiment(chosen, target, assign, driver_table)
    driver = common.build_driver(chosen, registry, run_id=run_id, allow_code=allow_code, quiet=quiet, as_json=as_json)
    is_resumed = resume == "auto" and driver.ranks.share((driver.log_dir / "run.db").is_file)
    if is_resumed:
        driver.restore(in_doubt=in_doubt, other_ranks=other_ranks)
        common.write_experiment(driver)
    common.run_driver(driver, is_resumed=is_resumed)
    common.report(driver, as_json=as_json, quiet=quiet)
