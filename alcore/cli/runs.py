"""``alcore runs``: list runs with their state and last metrics."""

from __future__ import annotations

import typer

from alcore.cli.common import DEFAULT_ROOT, AsJson, Root
from alcore.cli.text_tables import table
from alcore.codec import export_json
from alcore.store.reading import summaries


def runs(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> None:
    """List the runs of a folder, oldest first."""
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
            one.started.replace("+00:00", "Z"),
            one.reason or "",
        ]
        for one in found
    ]
    typer.echo(table(rows, ["run", "status", "steps", "labels", "last metrics", "started", "why it ended"]))
