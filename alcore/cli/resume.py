"""``alcore resume``: go on with an interrupted run, or extend one that ended."""

from __future__ import annotations

from typing import Annotated

import typer

from alcore.commands import driving, options, results
from alcore.commands.messages import say
from alcore.plugins.discovery import plugins_compared
from alcore.store.reading import find_run


@options.takes_driver_flags(
    steps="End after so many steps in all.",
    budget="What all labels may cost.",
    keep="Which checkpoints to keep from now on, as in alcore run.",
)
def resume(
    context: typer.Context,
    *,
    run: options.RunName,
    changes: options.DriverTable,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="FILE", help="Start from an older checkpoint, where the last one is damaged.")
    ] = None,
    assign: options.Assign = None,
    unset: options.Unset = None,
    in_doubt: options.InDoubt = None,
    other_ranks: options.OtherRanks = False,
    allow_code: options.AllowCode = False,
    root: options.Root = options.DEFAULT_ROOT,
    quiet: options.Quiet = False,
    as_json: options.ResultAsJson = False,
) -> None:
    """Go on with a run that was interrupted, or with more steps or budget for one that ended.

    The result equals that of a run which was never interrupted, and no label is bought twice.
    """
    stored = find_run(root, run, verify=False)
    registry = driving.prepare(context)
    experiment = driving.read_experiment(stored, assign, unset)
    experiment.settings["driver"] |= {**changes, "root_log_dir": str(stored.folder.parent)}
    with plugins_compared(stored.meta()["environment"]):
        driver = driving.build_driver(
            experiment, registry, run_id=stored.folder.name, allow_code=allow_code, quiet=quiet, as_json=as_json
        )
        driver.restore(checkpoint, in_doubt=in_doubt, other_ranks=other_ranks)
    if changes or assign or unset:
        driving.write_experiment(driver)
    if driver.stop_reason is None:
        driving.run_driver(driver, is_resumed=True)
    else:
        driver.run()
        say(f"run {driver.run_id} has ended already: {driver.stop_reason}. Give it more with --steps or --budget.")
    results.report(driver, as_json=as_json, quiet=quiet)
