"""``alcore resume``: take a run up where it was committed last, or extend a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from alcore.cli.runs import Root
from alcore.cli.show import RunName

InDoubt = Annotated[
    Literal["ask", "drop"] | None,
    typer.Option(
        "--in-doubt", help="Requests that were being labelled when the run was cut off: ask again, or drop them."
    ),
]
OtherRanks = Annotated[
    bool, typer.Option("--other-ranks", help="Go on with another number of processes than the run began with.")
]


def resume(
    run: RunName,
    steps: Annotated[int | None, typer.Option(metavar="N", help="End after so many steps in all.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="COST", help="What all labels may cost.")] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="RULES", help="Which checkpoints to keep from now on, as in alcore run.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="FILE", help="Start from an older checkpoint, where the last one is damaged.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Write to the run although another process holds it.")
    ] = False,
    in_doubt: InDoubt = None,
    other_ranks: OtherRanks = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that the run's experiment names.")
    ] = False,
    root: Root = Path("active_learning_logs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the run directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Go on with a run that was interrupted, or with more steps or budget for one that ended.

    The result equals that of a run which was never interrupted, and no label is bought twice.
    """
    from alcore.cli import running
    from alcore.experiment import Experiment
    from alcore.store.files import write_whole
    from alcore.store.reading import find_run

    found = find_run(root, run)
    registry = running.prepare()
    experiment = Experiment.read(found.folder / "experiment.toml")
    changes = {"max_active_learning_steps": steps, "budget": budget, "keep": keep}
    given = {name: value for name, value in changes.items() if value is not None}
    experiment.settings["driver"] |= {**given, "root_log_dir": str(found.folder.parent)}
    progress = None if quiet else running.Progress()
    resolved, driver = running.build(
        experiment, registry, run_id=found.folder.name, progress=progress, allow_code=allow_code
    )
    if progress is not None and not as_json:
        progress.headline = running.headline(resolved, driver)
    driver.restore(checkpoint, take_over=take_over, in_doubt=in_doubt, other_ranks=other_ranks)
    if given and driver.description is not None and driver.ranks.main:
        write_whole(found.folder / "experiment.toml", driver.description, durable=True)
    if driver.stop_reason is None:
        running.run(driver)
    else:
        driver.run()
        running.say(
            f"run {driver.run_id} has ended already: {driver.stop_reason}. Give it more with --steps or --budget."
        )
    running.report(driver, as_json=as_json, quiet=quiet)
