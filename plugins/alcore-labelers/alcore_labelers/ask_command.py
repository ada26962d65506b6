"""``alcore ask``: what a run wants labels of, as a table to fill in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alcore.commands import DEFAULT_ROOT, AllowCode, Root, RunName, prepare, results_alone, say, shell_name
from alcore.store import find_run

if TYPE_CHECKING:
    from alcore.protocols import DataInfo

_MOST_NAMES = 20


def ask(
    context: typer.Context,
    run: RunName,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write them to a file: .csv, .jsonl, or .npz (arrays)."),
    ] = None,
    allow_code: AllowCode = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """List what a run wants labels of, as CSV with empty cells to fill in; alcore tell takes them.

    The run may be under way. What is answered already is left out.
    """
    from alcore.experiment import Labeling
    from alcore_labelers.request_files import check_requests_file, requests_as_csv, write_requests

    if out is not None:
        check_requests_file(out)
    prepare(context)
    stored = find_run(root, run)
    name = shell_name(stored.folder)
    with results_alone():
        labeling = Labeling(stored, allow_code)
        requests = labeling.ask()
    if labeling.fault:
        say(f"inputs are not shown, as the data can't be made again: {labeling.fault}.")
    if out is None:
        typer.echo(requests_as_csv(requests), nl=False)
    elif requests:
        write_requests(requests, out)
        typer.echo(f"{out}: {len(requests)} requests of run {stored.folder.name}")
        typer.echo(f"Fill in label{_what(labeling.info)}.\nNext: alcore tell {name} {out}")
    if not requests:
        say(
            f"every request of run {stored.folder.name} has its answer{'' if out is None else '; nothing was written'}."
        )


def _what(info: DataInfo | None) -> str:
    """Return what a label may be, in words."""
    if info is None:
        return ""
    if info.task == "regression":
        return " with a number" if not info.classes else " with numbers"
    if info.names:
        more = "" if len(info.names) <= _MOST_NAMES else f" and {len(info.names) - _MOST_NAMES} more"
        return f" with one of: {', '.join(info.names[:_MOST_NAMES])}{more}"
    return f" with a class from 0 to {info.classes - 1}" if info.classes else " with a class"
