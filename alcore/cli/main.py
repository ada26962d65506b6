"""The typer application, and how its errors look."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

import alcore
from alcore import plugins
from alcore.cli import describe, export, fork, plugin_list, resume, run, runs, show
from alcore.errors import AlcoreError

_EPILOG = "Start with: alcore run --query uq --metrology f1"


def application(registry: plugins.Registry) -> typer.Typer:
    """Build the command with the sub-commands that plugins add."""
    app = typer.Typer(
        name="alcore",
        help="Active learning as a loop of exchangeable parts: train, measure, query, label.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for command in (
        run.run,
        resume.resume,
        fork.fork,
        runs.runs,
        show.show,
        export.export,
        plugin_list.plugins,
        describe.describe,
    ):
        app.command(command.__name__)(_interruptible(command))
    for plugin in registry.plugins:
        for add_commands in plugin.commands:
            try:
                add_commands(app)
            except Exception as error:  # noqa: BLE001 - one plugin's fault must not take the command away
                _say(f"warning: the commands of {plugin} are left out: {type(error).__name__}: {error}.")
    return app


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that tells of ctrl-C in the words of this one, before typer takes it."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            _say("interrupted.")
            raise typer.Exit(130) from None

    return wrapper


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alcore {alcore.__version__}")
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
        application(plugins.registry())()
    except AlcoreError as error:
        _tell_ranks(error)
        if debug:
            traceback.print_exc()
        if not (type(error).__name__ == "RankError" and _rank() != "0"):  # rank 0 tells it
            _say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # while plugins were loaded
        _say("interrupted.")
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the last place that can say it in one paragraph
        _tell_ranks(error)
        if debug:
            traceback.print_exc()
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", []))
        advice = "" if debug else " Run it again with --debug for the traceback."
        _say(f"error: {type(error).__name__}: {error}{notes}.{advice}")
        sys.exit(1)
    sys.exit(0)


def _take_only(arguments: list[str]) -> None:
    """Set ALCORE_ONLY from ``--only A,B``, which must be known before plugins are loaded."""
    for place, word in enumerate(arguments[1:], start=1):
        if word == "--only" and place + 1 < len(arguments):
            os.environ["ALCORE_ONLY"] = arguments[place + 1]
        elif word.startswith("--only="):
            os.environ["ALCORE_ONLY"] = word.partition("=")[2]
        elif not word.startswith("-"):
            break


def _tell_ranks(error: Exception) -> None:
    """Let the other processes know, if there are any."""
    if manager := sys.modules.get("alcore.distributed.manager"):
        manager.publish_failure(error)


def _say(text: str) -> None:
    print(f"alcore: {text}" if _rank() == "0" else f"alcore, rank {_rank()}: {text}", file=sys.stderr)


def _rank() -> str:
    return os.environ.get("RANK", "0")
