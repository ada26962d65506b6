"""The command itself: its sub-commands, the options before them, and how an error is printed."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from alcore.cli.ask import ask
from alcore.cli.check import check
from alcore.cli.common import rank, say
from alcore.cli.describe import describe
from alcore.cli.export import export
from alcore.cli.fork import fork
from alcore.cli.labels import labels
from alcore.cli.plugin_commands import add_plugin_commands
from alcore.cli.plugins import plugins
from alcore.cli.predict import predict
from alcore.cli.resume import resume
from alcore.cli.run import run
from alcore.cli.runs import runs
from alcore.cli.show import show
from alcore.cli.tell import tell
from alcore.errors import AlcoreError, message_of
from alcore.plugins.registry import Registry, core_version, installed

_EPILOG = "Start with: alcore run --query uq --metrology f1"


def application(registry: Registry) -> typer.Typer:
    """Build the command with the sub-commands that plugins add."""
    app = typer.Typer(
        name="alcore",
        help="Active learning as a loop of exchangeable parts: train, measure, query, label.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for command in (run, check, resume, fork, runs, show, ask, tell, labels, predict, export, plugins, describe):
        app.command(command.__name__)(_interruptible(command))
    add_plugin_commands(app, registry)
    return app


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that reports ctrl-C as this command reports it, since typer would have words of its own."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            say("interrupted.", on_every_rank=True)
            raise typer.Exit(130) from None

    return wrapper


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


def main() -> NoReturn:
    """Run the command."""
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    _take_only(sys.argv)
    try:
        registry = installed()
        for warning in registry.warnings:
            say(f"warning: {warning}.")
        application(registry)(obj=registry)
    except AlcoreError as error:
        _report_failure(error)
        if debug:
            traceback.print_exc()
        if not (type(error).__name__ == "RankError" and rank()):  # rank 0 prints it
            notes = getattr(error, "__notes__", ())
            say(f"error: {message_of(error)}{'.' if notes else ''}", on_every_rank=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # while plugins were loaded
        say("interrupted.", on_every_rank=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - every error is one paragraph
        _report_failure(error)
        if debug:
            traceback.print_exc()
        advice = "" if debug else " Run it again with --debug for the traceback."
        say(f"error: {type(error).__name__}: {message_of(error)}.{advice}", on_every_rank=True)
        sys.exit(1)
    sys.exit(0)


def _take_only(arguments: list[str]) -> None:
    """Set ALCORE_ONLY from the option ``--only A,B`` before the sub-command, since it decides which plugins load."""
    for place, word in enumerate(arguments[1:], start=1):
        if word == "--only" and place + 1 < len(arguments):
            os.environ["ALCORE_ONLY"] = arguments[place + 1]
        elif word.startswith("--only="):
            os.environ["ALCORE_ONLY"] = word.partition("=")[2]
        elif not word.startswith("-"):
            break


def _report_failure(error: Exception) -> None:
    """Report to torchrun and the other ranks why this process ends, where there are any."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ or "alcore.distributed.manager" in sys.modules:
        from alcore.distributed.manager import report_failure

        report_failure(error)
