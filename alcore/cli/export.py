"""``alcore export``: labelled data and model weights, for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alcore.cli.runs import Root
from alcore.cli.show import RunName
from alcore.store.reading import find_run


def export(
    run: RunName,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write [RUN-export].")] = None,
    root: Root = Path("active_learning_logs"),
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that the run's experiment names.")
    ] = False,
) -> None:
    """Write labels.csv, labelled.npz and model.safetensors of a run."""
    from alcore.experiment.export import export_run

    found = find_run(root, run)
    target = output or Path(f"{found.folder.name}-export")
    for name, what in export_run(found, target, allow_code=allow_code):
        typer.echo(f"{target / name}: {what}")
