"""``alcore run``: build a Driver from names and parameters, and run it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from alcore.commands import driving, options, results


@options.takes_driver_flags()
def run(
    context: typer.Context,
    *,
    experiment: options.ExperimentFile = None,
    query: Annotated[
        list[str] | None, options.part_option("query", "Query strategy [uq; for a regression: igs]; may repeat.")
    ] = None,
    start: Annotated[
        str | None, options.part_option("query", "Query strategy that begins, if nothing is labeled.")
    ] = None,
    label: Annotated[str | None, options.part_option("label", "Label strategy [dummy].")] = None,
    metrology: Annotated[
        list[str] | None,
        options.part_option("metrology", "Metrology strategy [f1; for a regression: regression]; may repeat."),
    ] = None,
    loop: Annotated[str | None, options.part_option("loop", "Training loop [default].")] = None,
    data: Annotated[str | None, options.part_option("data", "Data [moons], by name or as a file.")] = None,
    learner: Annotated[
        str | None, options.part_option("learner", "Learner [mlp], or your own package.module:name.")
    ] = None,
    stop: Annotated[list[str] | None, options.part_option("stop", "Stop criterion; may repeat.")] = None,
    observe: Annotated[list[str] | None, options.part_option("observe", "Observer; may repeat.")] = None,
    target: options.Target = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND.NAME.PARAMETER=VALUE",
            help="Any parameter, e.g. query.uq.max_samples=5; may repeat.",
        ),
    ] = None,
    driver_table: options.DriverTable,
    run_id: options.NewRunId = None,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(
            "--resume", help="auto: go on with the run of this id, if there is one; for restarts by torchrun."
        ),
    ] = "never",
    in_doubt: options.InDoubt = None,
    other_ranks: options.OtherRanks = False,
    allow_code: options.AllowCodeOfFile = False,
    quiet: options.Quiet = False,
    as_json: options.ResultAsJson = False,
) -> None:
    """Run active learning: train, measure, choose samples, get their labels, and again.

    Without arguments it runs on the built-in two-moons problem.
    """
    from alcore.experiment import Experiment

    driving.check_restart(run_id, resume)
    registry = driving.prepare(context)
    chosen = Experiment() if experiment is None else Experiment.open(experiment, registry)
    if data is not None:
        chosen.choose_data(data, registry)
    lists = {"query": query, "metrology": metrology, "stop": stop, "observe": observe}
    singles = {"start": start, "label": label, "loop": loop, "learner": learner}
    for kind, names in {**lists, **{kind: name and [name] for kind, name in singles.items()}}.items():
        if names:
            chosen.choose(kind, names)
    driving.complete_experiment(chosen, target, assign, driver_table)
    driver = driving.build_driver(chosen, registry, run_id=run_id, allow_code=allow_code, quiet=quiet, as_json=as_json)
    is_resumed = resume == "auto" and driver.ranks.share((driver.log_dir / "run.db").is_file)
    if is_resumed:
        driver.restore(in_doubt=in_doubt, other_ranks=other_ranks)
        driving.write_experiment(driver)
    driving.run_driver(driver, is_resumed=is_resumed)
    results.report(driver, as_json=as_json, quiet=quiet)
