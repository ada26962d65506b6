"""``alcore export``: labeled data and model weights, for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alcore.commands.driving import prepare, results_alone
from alcore.commands.options import DEFAULT_ROOT, AllowCode, LearnerOfRun, Root, RunName
from alcore.store.reading import find_run


def export(
    run: RunName,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write [RUN-export].")] = None,
    learner: LearnerOfRun = None,
    root: Root = DEFAULT_ROOT,
    allow_code: AllowCode = False,
) -> None:
    """Write labels, labeled data, preprocessing and learner of a run, for use without alcore; README.txt explains."""
    from alcore.experiment import export_run

    prepare()
    found = find_run(root, run)
    target = output or Path(f"{found.folder.name}-export")
    with results_alone():
        written = export_run(found, target, learner=learner, allow_code=allow_code)
    for name, what in written:
        typer.echo(f"{target / name}: {what}")
