"""``alcore labels``: what a run asked for and has no label of, and asking for it again."""

from __future__ import annotations

from typing import Annotated

import typer

from alcore.commands import DEFAULT_ROOT, AsJson, Root, RunName, shell_name, table
from alcore.errors import UsageError
from alcore.store import Run, export_json, find_run


def labels(
    run: RunName,
    reopen: Annotated[
        list[str] | None,
        typer.Option("--reopen", metavar="REQUEST", help="Ask for this label again; may be given several times."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> None:
    """List the requests of a run that have no label, with the reasons, and open given-up ones again.

    REQUEST is the id of a request, or its first digits. A request can be opened again that was given up, or whose label
    the training pool refused. It is handed out at the next labeling phase, when the run is resumed.
    """
    stored = find_run(root, run)
    if reopen:
        from alcore.experiment import reopen_requests

        reopen_requests(stored, [_find(stored, digits) for digits in reopen])
    rows = stored.unlabeled_requests()
    if as_json:
        typer.echo(export_json({"run_id": stored.folder.name, "requests": rows}), nl=False)
    elif not rows:
        typer.echo(f"Every request of run {stored.folder.name} has its label.")
    else:
        shown = [
            [
                row["step"],
                row["id"][:12],
                row["sample"] if row["item"] is None else row["item"][:40],
                row["state"],
                row["attempt"],
                row["reason"],
            ]
            for row in rows
        ]
        typer.echo(table(shown, ["step", "request", "sample", "state", "attempts", "last reason"]))
        name = shell_name(stored.folder)
        closed = next((row["id"][:12] for row in rows if row["state"] != "open"), None)
        again = f"alcore resume {name}" if closed is None else f"alcore labels {name} --reopen {closed}"
        typer.echo(f"\nNext: {again}")


def _find(run: Run, words: str) -> str:
    """Return the id of the request that begins with these digits, if it may be opened again."""
    rows = [row for row in run.unlabeled_requests() if row["id"].startswith(words.lower())]
    closed = [row["id"] for row in rows if row["state"] != "open"]
    name = shell_name(run.folder)
    if len(closed) > 1:
        raise UsageError(
            f"{len(closed)} requests begin with {words!r}; give more of the digits that alcore labels {name} lists."
        )
    if closed:
        return str(closed[0])
    if rows:
        raise UsageError(f"request {words} is open already; alcore resume {name} asks for it.")
    if any(request["id"].startswith(words.lower()) for request in run.requests()):
        raise UsageError(
            f"request {words} has its label, and the training pool has taken it; it can't be asked for again."
        )
    raise UsageError(
        f"run {run.folder.name} has no request {words!r}; alcore labels {name} lists those without a label."
    )
