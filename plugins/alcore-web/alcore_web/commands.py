"""The commands ``alcore dash`` and ``alcore watch``.

Importing this module is quick, since the command imports it whenever it is called; what serves and draws is imported
when it is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alcore.commands import DEFAULT_ROOT, INTERRUPTED, Root, RunName, say
from alcore.errors import UsageError, did_you_mean
from alcore.store import find_run, runs_within


def add_commands(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("dash")(dash)
    app.command("watch")(watch)


def dash(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Where run directories are.")] = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 is any that is free.")] = 0,
    host: Annotated[str, typer.Option(metavar="NAME", help="127.0.0.1, localhost or ::1.")] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, where there is a screen.")
    ] = True,
) -> None:
    """Show runs on a page of this machine while they go on: state, curves, picks with scores, comparison.

    Only who has the printed address can open it. Ctrl-C ends the page, with exit code 130, and no run.
    """
    from alcore_web.server import serve

    if (root / "run.db").is_file():
        raise UsageError(
            f"{root} is a run, and `alcore dash` takes the folder that runs are in: alcore dash "
            f"{root.resolve().parent}. In the terminal: alcore watch {root}"
        )
    if not root.is_dir() and root != DEFAULT_ROOT:
        there = [str(path) for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        near = did_you_mean(str(root), there) if there else "its parent is missing too"
        raise UsageError(f"there is no folder {root}: {near}.")

    def tell(address: str) -> None:
        count = len(runs_within(root))
        typer.echo(f"{count} run{'' if count == 1 else 's'} in {root}: {address}\nCtrl-C ends the page; runs go on.")
        sys.stdout.flush()  # a pipe may wait for it

    try:
        serve(root, host=host, port=port, browser=browser, tell=tell)
    except KeyboardInterrupt:
        say("interrupted; the page has ended, and runs go on.")
        raise typer.Exit(INTERRUPTED) from None


def watch(
    run: RunName,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Show one run in the terminal while it goes on; end when it ends. Ctrl-C ends this and not the run.

    The exit code is that of the run: 0 done, 1 failed or gone without a word, 3 waiting for labels, 130 interrupted.
    """
    from alcore_web.watch import RunWatch

    stored = find_run(root, run)
    try:
        code = RunWatch(stored).follow()
    except KeyboardInterrupt:
        say(f"no longer watching {stored.folder.name}, which goes on by itself.")
        raise typer.Exit(INTERRUPTED) from None
    if code:
        raise typer.Exit(code)
