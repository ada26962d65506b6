"""The sub-commands of the command, and the options before them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from alcore.cli.describe import describe
from alcore.cli.fork import fork
from alcore.cli.plugin_commands import add_plugin_commands, make_interruptible
from alcore.cli.plugins import plugins
from alcore.cli.resume import resume
from alcore.cli.run import run
from alcore.cli.runs import runs
from alcore.cli.show import show
from alcore.plugins.registry import Registry, core_version

_EPILOG = "Start with: alcore run --query uq --metrology f1"


def application(registry: Registry) -> typer.Typer:
    """Build the command with the sub-commands that plugins add."""
    app = typer.Typer(
        name="alcore",
        cls=_Commands,
        help="Active learning as a loop of exchangeable parts: train, measure, query, label.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    alcore_commands(app)
    make_interruptible(app)
    add_plugin_commands(app, registry)
    return app


def alcore_commands(app: typer.Typer) -> None:
    """Add the built-in commands, as the hook of this name of a plugin adds its own."""
    for command in (run, resume, fork, runs, show, plugins, describe):
        app.command(command.__name__)(command)


class _Commands(TyperGroup):
    """The sub-commands; for a missing one that a plugin of this repository has, an error says which plugin that is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of a command, the command, and its arguments."""
        if isinstance(ctx.obj, Registry) and args[0] not in self.commands and not ctx.resilient_parsing:
            ctx.obj.check_command(args[0])
        return super().resolve_command(ctx, args)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alcore {core_version()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="A,B", help="Use only these plugins, by package or entry point."),
    ] = None,
) -> None:
    del version, debug, only  # the last two were read from the arguments before anything was loaded
