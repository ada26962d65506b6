"""``alcore plugins``: what is installed, what it offers, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from alcore.commands.options import AsJson, installed_plugins
from alcore.commands.tables import table
from alcore.errors import UsageError
from alcore.plugins.registry import Clash, Registry


def plugins(
    context: typer.Context,
    action: Annotated[
        str,
        typer.Argument(
            metavar="[list|check]",
            help="check imports all that is offered, and exits with 1 if a plugin is not ok.",
            show_default=False,
        ),
    ] = "list",
    timings: Annotated[
        bool, typer.Option("--timings", help="Show how long each plugin took to import, the slowest first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List plugins: package, version, what each offers, and its state."""
    if action not in ("list", "check"):
        raise UsageError(f"alcore plugins {action}: write list or check.")
    registry = installed_plugins(context)
    if action == "check":
        registry.check_offers()
    clashes = registry.clashes()
    faults = [plugin for plugin in registry.plugins if plugin.state in ("faulty", "broken", "refused")]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "plugins": [
                        {
                            **{
                                f.name: getattr(plugin, f.name)
                                for f in dataclasses.fields(plugin)
                                if f.name not in ("offers", "commands")
                            },
                            "offers": {kind: sorted(names) for kind, names in plugin.offers.items()},
                        }
                        for plugin in registry.plugins
                    ],
                    "clashes": [
                        {"kind": kind, "name": name, "plugins": [str(owner) for owner in owners]}
                        for kind, name, owners in clashes
                    ],
                },
                indent=1,
            )
        )
    else:
        _print(registry, clashes, timings)
    if action == "check" and (faults or clashes):
        raise typer.Exit(1)


def _print(registry: Registry, clashes: list[Clash], timings: bool) -> None:
    rows, headers = [], ["package", "version", "state", *(["seconds"] if timings else []), "offers"]
    for plugin in sorted(registry.plugins, key=lambda plugin: -plugin.seconds if timings else 0):
        offers = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in sorted(plugin.offers.items()))
        seconds = [plugin.seconds] if timings else []
        rows.append([plugin.distribution, plugin.version, plugin.state, *seconds, offers or "-"])
    typer.echo(table(rows, headers))
    for plugin in registry.plugins:
        if plugin.error:
            typer.echo(f"\n{plugin} is {plugin.state}: {plugin.error}.")
    for clash in clashes:
        typer.echo(f"\n{clash}.")
    typer.echo("\nNext: alcore describe KIND NAME, for instance alcore describe query uq")
