"""``alcore runs``: list runs with their state and last metrics."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from alcore.cli.common import DEFAULT_ROOT, AsJson, Root, say
from alcore.cli.text_tables import table
from alcore.codec import export_json
from alcore.store.creation import remove_unfinished_runs, unfinished_runs
from alcore.store.reading import summaries


def runs(
    root: Root = DEFAULT_ROOT,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what processes left that were killed while they made a run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs of a folder, oldest first."""
    if clean:
        say(f"removed {_count(len(remove_unfinished_runs(root)))} from {root}.")
    if left := unfinished_runs(root):
        where = "" if root == DEFAULT_ROOT else f" --root {shlex.quote(str(root))}"
        say(f"{root} has {_count(len(left))} of processes that were killed; alcore runs{where} --clean removes them.")
    found = list(summaries(root))
    if as_json:
        typer.echo(export_json([one._asdict() for one in found]), nl=False)
        return
    if not found:
        typer.echo(f"No runs in {root}. Make one with: alcore run --query uq --metrology f1")
        return
    rows = [
        [
            one.run_id,
            one.status,
            one.steps,
            one.labels,
            " ".join(f"{name}={value:.3f}" for name, value in one.metrics.items()),
            one.on,
            one.started.replace("+00:00", "Z"),
            one.reason or "",
        ]
        for one in found
    ]
    typer.echo(table(rows, ["run", "status", "steps", "labels", "last metrics", "on", "started", "why it ended"]))


def _count(number: int) -> str:
    return f"{number} unfinished run{'' if number == 1 else 's'}"
