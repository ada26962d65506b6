"""``alcore fork``: a new run that begins with what another run had committed at the end of a step."""

from __future__ import annotations

from typing import Annotated

import typer

from alcore.codec import export_json
from alcore.commands.driving import prepare, read_experiment, results_alone
from alcore.commands.messages import say
from alcore.commands.options import DEFAULT_ROOT, AllowCode, AsJson, Assign, Root, RunName, Unset, integer
from alcore.commands.results import shell_name
from alcore.plugins.discovery import plugins_compared
from alcore.store.fork import fork_run
from alcore.store.reading import Run, find_run


def fork(
    context: typer.Context,
    run: RunName,
    step: Annotated[
        int,
        typer.Option(metavar="N", parser=integer, help="The last step that the new run has.", show_default=False),
    ],
    run_id: Annotated[str | None, typer.Option(metavar="ID", help="Name of the new run; made up if not given.")] = None,
    assign: Assign = None,
    unset: Unset = None,
    allow_code: AllowCode = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """Make a new run that begins with everything RUN had committed at the end of a step.

    RUN is only read, may be running, and shares no file with the new one.
    """
    source = find_run(root, run, verify=False)
    changed = None
    if assign or unset:
        from alcore.experiment import resolve, to_toml

        with plugins_compared(source.meta()["environment"]), results_alone():
            changed = to_toml(resolve(read_experiment(source, assign, unset), prepare(context), allow_code=allow_code))
    made = fork_run(source, step, run_id=run_id, experiment=changed)
    for warning in made.warnings:
        say(f"warning: {warning}.")
    summary = Run(made.folder).summary()
    if as_json:
        content = {
            "run_id": summary.run_id,
            "log_dir": str(made.folder),
            "forked_from": source.folder.name,
            "forked_at": step,
            "checkpoint": made.checkpoint,
            "steps": summary.steps,
            "labels": summary.labels,
            "warnings": made.warnings,
        }
        typer.echo(export_json(content), nl=False)
        return
    typer.echo(
        f"Run {summary.run_id} begins with {summary.steps} steps and {summary.labels} labels of run "
        f"{source.folder.name}, and goes on from {made.checkpoint}."
    )
    typer.echo(f"Next: alcore resume {shell_name(made.folder)}")
