"""``alcore export``: labeled data and model weights, for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alcore.cli.common import DEFAULT_ROOT, AllowCode, Root, RunName
from alcore.store.reading import find_run


def export(
    run: RunName,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write [RUN-export].")] = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Write labels.csv, labelled.npz and model.safetensors of a run."""
    from alcore.experiment import export_run

    found = find_run(root, run)
    target = output or Path(f"{found.folder.name}-export")
    for name, what in export_run(found, target, allow_code=allow_code):
        typer.echo(f"{target / name}: {what}")
