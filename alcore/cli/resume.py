"""``alcore resume``: go on with an interrupted run, or extend one that ended."""

from __future__ import annotations

from typing import Annotated

import typer

from alcore.cli import common
from alcore.plugins.discovery import plugins_compared
from alcore.store.reading import find_run


@common.takes_driver_flags(
    steps="End after so many steps in all.",
    budget="What all labels may cost.",
    keep="Which checkpoints to keep from now on, as in alcore run.",
)
def resume(
    *,
    run: common.RunName,
    changes: common.DriverTable,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="FILE", help="Start from an older checkpoint, where the last one is damaged.")
    ] = None,
    assign: common.Assign = None,
    unset: common.Unset = None,
    in_doubt: common.InDoubt = None,
    other_ranks: common.OtherRanks = False,
    allow_code: common.AllowCode = False,
    root: common.Root = common.DEFAULT_ROOT,
    quiet: common.Quiet = False,
    as_json: common.ResultAsJson = False,
) -> None:
    """Go on with a run that was interrupted, or with more steps or budget for one that ended.

    The result equals that of a run which was never interrupted, and no label is bought twice.
    """
    found = find_run(root, run, verify=False)
    registry = common.prepare()
    experiment = common.read_experiment(found, assign, unset)
    experiment.settings["driver"] |= {**changes, "root_log_dir": str(found.folder.parent)}
    with plugins_compared(found.meta()["environment"]):
        driver = common.build_driver(
            experiment, registry, run_id=found.folder.name, allow_code=allow_code, quiet=quiet, as_json=as_json
        )
        driver.restore(checkpoint, in_doubt=in_doubt, other_ranks=other_ranks)
    if changes or assign or unset:
        common.write_experiment(driver)
    if driver.stop_reason is None:
        common.run_driver(driver, is_resumed=True)
    else:
        driver.run()
        common.say(
            f"run {driver.run_id} has ended already: {driver.stop_reason}. Give it more with --steps or --budget."
        )
    common.report(driver, as_json=as_json, quiet=quiet)
